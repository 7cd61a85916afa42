"""Training the music encoder from nothing: it learns, it resumes bit for bit, and the codec can listen through it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from auditory_sentences.corpora.read import read_corpus
from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder
from codec.io.errors import UserError
from tests import ROOT
from training.codec.audio_crops import AudioCrops
from training.codec.experts.train_expert import ExpertRecipe, equally_long, run
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"
SIZES = {"dim": 24, "heads": 2, "feed_forward": 48, "layers": 2, "kernel": 5, "channels": 4, "mel_bands": 16}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Thirty melodies of two buzzing tones that take turns every 0.2 s: what is masked can be guessed."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(30):
        time = np.arange(rng.integers(20000, 30000)) / 24000
        low, high = rng.choice([150, 400, 1000, 3000], 2, replace=False)
        frequency = np.where((time // 0.2).astype(int) % 2, low, high)
        wave = 0.4 * np.sign(np.sin(2 * np.pi * np.cumsum(frequency) / 24000)) + 0.001 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        split = "dev" if number < 6 else "train"
        lines.append({"id": f"melody-{number}", "path": f"{number}.wav", "kind": "music", "split": split})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tiny(corpus: Path, out: Path, **changes) -> ExpertRecipe:
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "validate_every": 2,
        "encoder": SIZES | {"fft_size": 512},
        "prediction": {"codes": 16, "code_dim": 4, "span": 3, "mask_share": 0.4},
        "batch": 4,
        "crop_seconds": 0.8,
        "statistics_batches": 2,
        "held_out_batches": 2,
        "optimiser": {"lr": 5e-3, "warmup_steps": 5, "weight_decay": 0.0},
        "engine": {"micro_batches": 2},
    }
    return parse(ExpertRecipe, values | changes, "the test")


def test_learns_more_than_the_commonest_code_and_the_codec_can_listen(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path / "run", steps=100, save_every=100, validate_every=20)
    model = run(recipe)
    entries = read_metrics(tmp_path / "run")
    held_out = [entry for entry in entries if "val/loss" in entry]
    assert len(held_out) == 5 and held_out[-1]["val/loss"] < 0.9 * held_out[0]["val/loss"]
    assert held_out[-1]["val/accuracy"] > held_out[-1]["val/majority"] + 0.1
    trained = [entry for entry in entries if "accuracy" in entry]
    first, last = (sum(entry["loss"] for entry in part) / 10 for part in (trained[:10], trained[-10:]))
    assert len(trained) == 100 and last < 0.8 * first
    assert trained[0]["targets_perplexity"] > 3
    assert MusicEncoder.from_pretrained(model).config == recipe.encoder

    taps = {"music_acoustic": (1,), "music_semantic": (2,)}
    expert = load_expert(ExpertConfig("music", "conformer", str(tmp_path / "run"), taps))  # the run's own folder
    tone = 0.3 * torch.sin(torch.arange(24000) / 24000 * 2 * torch.pi * 300)[None]
    assert expert.features(tone)["music_semantic"].shape == (1, 24, 26)


def test_an_encoder_of_speech_is_the_same_with_half_the_hop(corpus, tmp_path):
    run(tiny(corpus, tmp_path / "run", encoder=SIZES | {"fft_size": 512, "hop": 120}))
    for role in ("phone", "speech_text"):
        expert = load_expert(ExpertConfig(role, "conformer", str(tmp_path / "run"), {role: (1, 2)}))
        assert expert.features(torch.zeros(1, 24000))[role].shape == (1, 24, 51)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_interrupted_equals_uninterrupted(corpus, tmp_path, zero_stage):
    engine = {"micro_batches": 2, "zero_stage": zero_stage}
    whole = run(tiny(corpus, tmp_path / "whole", engine=engine))
    run(tiny(corpus, tmp_path / "cut", engine=engine))
    (tmp_path / "cut" / "model").unlink()
    last = tmp_path / "cut" / "checkpoints" / "step-00000004"
    last.rename(tmp_path / "set_aside")  # as if killed between the two checkpoints
    resumed = run(tiny(corpus, tmp_path / "cut", engine=engine), resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    strip = [
        [{k: v for k, v in entry.items() if k != "time" and "per_second" not in k} for entry in read_metrics(folder)]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert len(strip[0]) == 6 and strip[0] == strip[1]


def test_mixed_precision_has_the_same_targets_and_nearly_the_same_losses(corpus, tmp_path):
    entries = []
    for precision in ("fp32", "mixed"):
        run(tiny(corpus, tmp_path / precision, steps=2, engine={"precision": precision}))
        entries.append([entry for entry in read_metrics(tmp_path / precision) if "accuracy" in entry])
    for exact, mixed in zip(*entries, strict=True):
        assert exact["targets_perplexity"] == mixed["targets_perplexity"]
        assert mixed["loss"] != exact["loss"] and mixed["loss"] == pytest.approx(exact["loss"], rel=0.03)


def test_a_saved_encoder_does_not_depend_on_when_others_were_saved(corpus, tmp_path):
    often, once = (
        load_file(run(tiny(corpus, tmp_path / name, save_every=every, validate_every=0)) / "model.safetensors")
        for name, every in (("often", 1), ("once", 4))
    )
    assert all(torch.equal(often[key], once[key]) for key in often)
    assert int(often["front_end.blocks.0.norm_in.num_batches_tracked"]) == 2


def test_the_quantiser_stays_what_it_was(corpus, tmp_path):
    run(tiny(corpus, tmp_path / "run"))
    states = [
        load_file(tmp_path / "run" / "checkpoints" / f"step-0000000{step}" / "engines" / "model" / "frozen.safetensors")
        for step in (2, 4)
    ]
    assert {"quantiser.projection", "quantiser.codebook"} < states[0].keys()
    assert states[0]["quantiser.mean"].abs().max() > 0.1  # measured at the start
    for name in ("projection", "codebook", "mean", "deviation"):
        name = f"quantiser.{name}"
        assert torch.equal(states[0][name], states[1][name])


def test_batches_are_cut_to_their_shortest_clip(corpus):
    crops = AudioCrops(read_corpus(corpus), 4, 1.2, "key").batch(0)
    assert len({crop.length for crop in crops}) > 1
    waveforms = equally_long(crops, 960)
    assert waveforms.shape == (4, min(crop.length for crop in crops) // 960 * 960)
    for waveform, crop in zip(waveforms, crops, strict=True):
        assert torch.equal(waveform, crop.load()[: waveforms.shape[1]])
    short = [replace(crop, length=100) for crop in crops]
    assert equally_long(short, 960).shape == (4, 960)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"corpora": []}, "'corpora' must not be empty"),
        ({"encoder": {"heads": 5}}, "heads of even width"),
        ({"encoder": {"sample_rate": 16000}}, "sample_rate"),
        ({"prediction": {"mask_share": 2.0}}, "mask_share"),
        ({"engine": {"precision": "bf16", "zero_stage": 1}}, "use mixed"),
        ({"encodr": {}}, "encoder"),
    ],
)
def test_bad_recipes_are_refused(corpus, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        tiny(corpus, tmp_path, **values)


@pytest.mark.parametrize("name", ["starter", "full"])
def test_shipped_recipes(name):
    recipe = load_recipe(RECIPES / name / "expert.yaml")
    assert recipe.encoder.samples_per_frame == 960
    if name == "full":
        assert (recipe.encoder.dim, recipe.encoder.layers, recipe.prediction.codes) == (1024, 12, 4096)
