"""Ablations: every documented command is a recipe but for one line, and trains."""

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokenizer import load_tokenizer
from tests import ROOT
from tests.factories.codec import SMALL_SCALAR, noise
from training.lm.train_text import TextModelRecipe
from training.lm.train_text import run as train_text
from training.recipe import load_recipe, parse, train

PAGE = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
COMMANDS = {  # name of the run -> recipe and what is changed but for `out`
    arguments[3].removeprefix("out=runs/ablations/"): (arguments[2], arguments[4:])
    for arguments in (shlex.split(line) for line in PAGE.splitlines() if line.startswith("uniaudio train "))
}
STARTER = yaml.safe_load((ROOT / "recipes" / "starter" / "descriptive.yaml").read_text(encoding="utf-8"))
TINY = {
    "descriptive": {
        "experts": STARTER["experts"],
        "kind": "descriptive",
        "tasks": {"audio_qa:class": 1.0},
        "held_out_tasks": ["audio_qa:class"],
        "lora": {"rank": 2, "alpha": 4, "dropout": 0.0},
        "descriptive": {
            "speech_dim": STARTER["descriptive"]["speech_dim"],
            "music_dim": STARTER["descriptive"]["music_dim"],
            "dim": 16,
            "heads": 2,
            "rope_dims": 4,
            "blocks": 1,
            "quantiser": {"codebook_size": 8, "codebook_dim": 4, "kmeans_init": False},
        },
    },
    "codec": {
        "kind": "structural",
        "crop_seconds": 0.4,
        "structural": {"dim": 16, "quantiser": {"codebook_size": 16, "codebook_dim": 4, "dead_code_threshold": 0.0}},
        "flow": {"layers": 1, "heads": 2, "head_dim": 8, "window_frames": 100, "overlap_frames": 4},
    },
}


def test_all_ablations_are_documented_at_both_sizes():
    names = {"no_film", "pooling", "one_expert", "one_expert_codec"}
    assert COMMANDS.keys() == names | {f"full_{name}" for name in names}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pair_differs_in_one_line(name):
    path, changes = COMMANDS[name]
    plain, ablation = load_recipe(ROOT / path), load_recipe(ROOT / path, changes)
    differing = {field.name for field in fields(plain) if getattr(plain, field.name) != getattr(ablation, field.name)}
    inputs = {"descriptive"} if path.endswith("codec.yaml") else set()  # the run before, itself an ablation
    assert len(differing - inputs) == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a command's recipe at a tiny size for two steps, after whatever it goes on from."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "corpus").mkdir()
    lines = []
    for i in range(8):
        soundfile.write(folder / "corpus" / f"{i}.wav", noise(5000 + 900 * i, seed=i).numpy(), 24_000)
        line = {"id": f"clip{i}", "path": f"{i}.wav", "kind": "sound", "labels": {"class": ("bell", "bird")[i % 2]}}
        lines.append(json.dumps(line | {"split": "dev" if i > 5 else "train"}) + "\n")
    (folder / "corpus" / "clips.jsonl").write_text("".join(lines))
    (folder / "text.txt").write_text(
        "\n".join(("a bell. what do you hear? bell", "a bird. what do you hear? bird") * 50)
    )
    sizes = {"vocabulary": 400, "layers": 1, "width": 16, "mlp": 16, "context": 48, "batch": 2}
    text = {"out": str(folder / "text"), "steps": 1, "texts": [str(folder / "text.txt")], **sizes}
    train_text(parse(TextModelRecipe, text, "the test"))
    torch.manual_seed(0)
    ScalarAutoencoder(SMALL_SCALAR).save_pretrained(folder / "scalar")

    def run(kind: str, name: str, changes: list[str] = ()) -> Path:
        if (folder / name).exists():
            return folder / name / "model"
        common = {"out": str(folder / name), "corpora": [str(folder / "corpus")], "steps": 2, "batch": 2}
        inputs = {"text_model": str(folder / "text" / "model")}
        if kind == "codec":
            before = next((c.split("/")[-1] for c in changes if c.startswith("descriptive=")), "plain_descriptive")
            described = run("descriptive", before, COMMANDS[before][1] if before in COMMANDS else [])
            inputs = {"scalar": str(folder / "scalar"), "descriptive": str(described)}
        recipe = folder / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump(TINY[kind] | common | inputs))
        return train(recipe, [change for change in changes if not change.startswith("descriptive=")])

    return run


def test_without_film_the_descriptive_frames_have_no_say(trained):
    """And with it they have, from the second step on."""
    for name, changes, says in (("no_film", COMMANDS["no_film"][1], False), ("film", [], True)):
        codec = load_tokenizer(trained("codec", name, changes))
        film = torch.cat([p.flatten() for p in codec.structural.film.parameters()])
        assert bool(film.abs().sum() > 0) == says
        features = codec.extract_features(noise(9_600)[None], torch.tensor([9_600]))
        described, _ = codec.encode_descriptive(features)
        fused = codec.structural.fuse(features.values)
        with torch.no_grad():
            modulated = codec.structural.modulate(fused, described + 1.0)
        assert torch.equal(modulated["acoustic"], fused["acoustic"]) != says


def test_pooling_trains_and_makes_a_codec(trained):
    folder = trained("descriptive", "pooling", COMMANDS["pooling"][1])
    assert "query" not in load_file(folder / "model.safetensors")
    codec = load_tokenizer(trained("codec", "pooling_codec", ["descriptive=runs/ablations/pooling"]))
    assert codec.config.descriptive.downsampling == "mean_pool"
    tokens = codec.encode(noise(9_000)[None])[0]
    assert tokens["descriptive"].shape == (8, 2)
    assert codec.decode([tokens], steps=1)[0].shape == (9_000,)


def test_one_expert_hears_for_all_roles(trained):
    """The starter's: one window, one range and one scale in every view."""
    folder = trained("codec", "one_expert_codec", COMMANDS["one_expert_codec"][1])
    assert DescriptiveEncoder.from_pretrained(trained("descriptive", "one_expert", COMMANDS["one_expert"][1]))
    codec = load_tokenizer(folder)
    views = [view for expert in codec.config.experts for view in expert.views.values()]
    assert len(views) == 4 and len({(v.window, v.low, v.high, v.scale, v.centre) for v in views}) == 1
    assert codec.encode(noise(9_000)[None])[0]["structural"].shape == (8, 5)


def test_the_shipped_codec_is_what_it_was():
    """Fields that ablations added have the published behaviour as default: nobody's fingerprint changes."""
    assert load_tokenizer("starter/codec").fingerprint == "715f3a16f7c83e3b"
