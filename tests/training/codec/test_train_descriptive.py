"""Supervised training of the descriptive branch: the audio LLM reads right, learns, and resumes bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from tests import ROOT
from tests.factories.tones import write_tones
from training.codec.supervision import load_descriptive_encoder
from training.codec.train_descriptive import DescriptiveRecipe, run
from training.engine.checkpoint import resolve_model
from training.lm.train_text import TextModelRecipe
from training.lm.train_text import run as train_text
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"
SIZES = {
    "speech_dim": 128,
    "music_dim": 120,
    "dim": 32,
    "heads": 2,
    "rope_dims": 8,
    "blocks": 1,
    "quantiser": {"codebook_size": 16, "codebook_dim": 8, "dead_code_threshold": 0.1, "kmeans_init": True},
}


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """A text model that knows which answers there are, though not when each is right."""
    folder = tmp_path_factory.mktemp("text")
    lines = ("a bell. what do you hear? bell", "a bird. what do you hear? bird", "one two", "nine")
    (folder / "text.txt").write_text("\n".join(lines * 50))
    values = {
        "out": str(folder / "run"),
        "steps": 250,
        "log_every": 250,
        "texts": [str(folder / "text.txt")],
        "dialogues": 1.0,
        "vocabulary": 400,
        "layers": 2,
        "width": 32,
        "mlp": 64,
        "context": 48,
        "batch": 4,
        "optimiser": {"lr": 1e-2, "warmup_steps": 3},
    }
    return str(train_text(parse(TextModelRecipe, values, "the test")).resolve())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("corpus"))


def tiny(corpus: Path, text_model: str, out: Path, **changes) -> DescriptiveRecipe:
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "text_model": text_model,
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "descriptive": SIZES,
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
        "tasks": {"audio_qa:class": 3.0, "asr": 1.0},
        "held_out_tasks": ["audio_qa:class"],
        "batch": 4,
        "quantise_after": 1,
        "alignment_weight": 0.1,
        "label_weight": 0.1,
        "cache_features": True,
        "augmentation": {"time_masks": 1, "band_masks": 1, "warp": 0.05},
        "optimiser": {"lr": 3e-3, "warmup_steps": 3},
    }
    return parse(DescriptiveRecipe, values | changes, "the test")


@pytest.mark.slow
def test_learns_to_tell_bells_from_birds(corpus, text_model, tmp_path):
    """The answers stay a coin's toss (0.5) until the branch has found the difference.

    Hence enough steps, half of them without quantisation, and neither augmentation nor dropout nor a rate that jumps.
    """
    changes = {
        "steps": 300,
        "save_every": 300,
        "validate_every": 300,
        "quantise_after": 150,
        "tasks": {"audio_qa:class": 1},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        "augmentation": {},
        "optimiser": {"lr": 1e-3, "warmup_steps": 10},
    }
    folder = run(tiny(corpus, text_model, tmp_path / "run", **changes))
    entries = read_metrics(tmp_path / "run")
    scores = [entry["val/audio_qa:class"] for entry in entries if "val/audio_qa:class" in entry]
    assert scores[-1] >= 0.75
    logged = [entry for entry in entries if "answer" in entry]
    last = sum(entry["answer"] for entry in logged[-10:]) / 10
    assert last < 0.5 * logged[0]["answer"] and last < 0.3, "a coin's toss costs 0.35"
    assert ["descriptive_usage" in entry for entry in logged] == [entry["step"] > 150 for entry in logged]
    encoder = DescriptiveEncoder.from_pretrained(folder)
    with torch.no_grad():
        tones = torch.sin(2 * torch.pi * torch.tensor([[400.0], [2500.0]]) * torch.arange(20000) / 24000)
        codes = encoder(0.4 * tones, torch.tensor([20000, 20000])).codes
    assert not torch.equal(codes[0], codes[1])


def test_labels_are_learned_though_nobody_asks_for_them(corpus, text_model, tmp_path):
    changes = {
        "tasks": {"sound_caption": 1.0},
        "held_out_tasks": ["sound_caption"],
        "steps": 80,
        "save_every": 80,
        "label_weight": 1.0,
    }
    changes |= {"quantise_after": 79, "augmentation": {}, "optimiser": {"lr": 3e-3, "warmup_steps": 3}}
    folder = run(tiny(corpus, text_model, tmp_path / "run", **changes))
    losses = [entry["labels"] for entry in read_metrics(tmp_path / "run") if "labels" in entry]
    assert sum(losses[-11:-1]) < 0.5 * sum(losses[:10])
    kept = load_file(folder / "audio_llm.safetensors").keys() | load_file(folder / "model.safetensors").keys()
    assert not any("label_heads" in name for name in kept)  # the finished branch has no use for them


def test_interrupted_equals_uninterrupted(corpus, text_model, tmp_path):
    whole = run(tiny(corpus, text_model, tmp_path / "whole"))
    run(tiny(corpus, text_model, tmp_path / "cut"))
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(tiny(corpus, text_model, tmp_path / "cut"), resume=True)
    for name in ("model.safetensors", "audio_llm.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_training_of_a_branch_continues(corpus, text_model, tmp_path):
    first = run(tiny(corpus, text_model, tmp_path / "first"))
    still = {"lr": 1e-12, "warmup_steps": 0}
    changes = {"init": str(tmp_path / "first"), "quantise_after": 0, "steps": 1}
    second = run(tiny(corpus, text_model, tmp_path / "second", optimiser=still, **changes))
    before, after = load_file(first / "audio_llm.safetensors"), load_file(second / "audio_llm.safetensors")
    assert before.keys() == after.keys() and "alignment.weight" in before
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    merge = "merge.weight"
    before, after = load_file(first / "model.safetensors")[merge], load_file(second / "model.safetensors")[merge]
    assert torch.allclose(before, after, atol=1e-6)
    with pytest.raises(UserError, match="other experts or sizes than this recipe states"):
        run(tiny(corpus, text_model, tmp_path / "third", descriptive=SIZES | {"blocks": 2}, **changes))
    with pytest.raises(UserError, match="quantise_after must be 0 with init"):
        run(tiny(corpus, text_model, tmp_path / "fourth", **changes | {"quantise_after": 1}))
    run(tiny(corpus, text_model, tmp_path / "unquantised", steps=1, save_every=1))
    with pytest.raises(UserError, match="its codebooks hold no codes yet"):
        run(tiny(corpus, text_model, tmp_path / "fifth", **changes | {"init": str(tmp_path / "unquantised")}))


def test_the_frozen_text_model_may_be_half_as_wide(corpus, text_model, tmp_path):
    folder = run(
        tiny(corpus, text_model, tmp_path / "run", text_precision="bf16", engine={"precision": "mixed"}, steps=2)
    )
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "audio_llm.safetensors").values())


def test_the_shipped_branch_can_be_taught_analyses():
    recipe = load_recipe(RECIPES / "starter" / "analysis.yaml")
    assert recipe.experts is None and recipe.descriptive is None  # those of the codec that it starts from
    encoder = load_descriptive_encoder(resolve_model(recipe.init))
    assert encoder.branch.initialised and recipe.tasks["analysis"] > 0


@pytest.mark.parametrize("name", ["starter/descriptive.yaml", "full/descriptive.yaml"])
def test_the_shipped_recipes_are_valid(name):
    recipe = load_recipe(RECIPES / name)
    assert isinstance(recipe, DescriptiveRecipe) and recipe.descriptive.levels == 8
