"""Training the scalar autoencoder: it learns, it resumes bit for bit; both front ends, with and without adversary."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from tests import ROOT
from training.codec.train_scalar import ReconstructionLoss, ScalarRecipe, random_gains, run
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

RECIPES = ROOT / "recipes"
STFT = {
    "front_end": "stft",
    "num_bands": 65,
    "fft_size": 128,
    "hop": 32,
    "causal": False,
    "num_samples": 1,
    "downsample_factors": [2],
    "downsample_kernel_sizes": [4],
    "upsample_factors": [2],
    "upsample_kernel_sizes": [4],
    "default_kernel_size": 3,
    "delay_kernel_size": 3,
    "res_kernel_size": 3,
    "init_channel": 16,
    "latent_hidden_dim": 12,
    "phase_iterations": 2,
}
WAVEFORM = {
    "num_samples": 2,
    "downsample_factors": [4, 8],
    "downsample_kernel_sizes": [8, 16],
    "upsample_factors": [8, 4],
    "upsample_kernel_sizes": [16, 8],
    "default_kernel_size": 5,
    "delay_kernel_size": 3,
    "res_kernel_size": 3,
    "init_channel": 4,
    "latent_hidden_dim": 12,
}
ADVERSARY = {"start_step": 2, "fft_sizes": [64, 128], "channels": 4}
CASES = {
    "stft": (STFT, None),
    "stft with principal components": (STFT | {"principal_components": True}, None),
    "stft with adversary": (STFT, ADVERSARY),
    "waveform with adversary": (WAVEFORM, ADVERSARY),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve gliding tones of different lengths."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        time = np.arange(rng.integers(2000, 6000)) / 24000
        frequency = rng.uniform(200, 3000) * (1 + time)
        wave = 0.4 * np.sin(2 * np.pi * np.cumsum(frequency) / 24000)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        split = "dev" if number < 4 else "train"
        lines.append({"id": f"tone-{number}", "path": f"{number}.wav", "kind": "sound", "split": split})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tiny(corpus: Path, out: Path, case: str, **changes) -> ScalarRecipe:
    autoencoder, adversary = CASES[case]
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "batch": 3,
        "crop_seconds": 0.1,
        "latent_weight": 0.1,
        "fit_batches": 5,
        "autoencoder": autoencoder,
        "adversary": adversary,
        "optimiser": {"lr": 3e-3, "warmup_steps": 5, "weight_decay": 0.0},
    }
    return parse(ScalarRecipe, values | changes, "the test")


def test_learns_and_the_result_loads(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path / "run", "stft", steps=60, save_every=60, validate_every=5)
    model = ScalarAutoencoder.from_pretrained(run(recipe))
    assert model.config == recipe.autoencoder and not model.training
    entries = read_metrics(tmp_path / "run")
    held_out = [entry["val/loss"] for entry in entries if "val/loss" in entry]
    assert len(held_out) == 12 and held_out[-1] < 0.7 * held_out[0]
    trained = [entry for entry in entries if "bins" in entry]
    assert len(trained) == 60
    total = trained[5]
    assert total["loss"] == pytest.approx(total["bins"] + total["mel"] + 0.1 * total["latent_power"], rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_interrupted_equals_uninterrupted(case, corpus, tmp_path):
    whole = run(tiny(corpus, tmp_path / "whole", case))
    run(tiny(corpus, tmp_path / "cut", case))
    (tmp_path / "cut" / "model").unlink()
    last = tmp_path / "cut" / "checkpoints" / "step-00000004"
    last.rename(tmp_path / "set_aside")  # as if killed between the two checkpoints
    resumed = run(tiny(corpus, tmp_path / "cut", case), resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    strip = [
        [{k: v for k, v in entry.items() if k != "time" and "per_second" not in k} for entry in read_metrics(folder)]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert strip[0] == strip[1]


def test_the_adversary_enters_at_its_step_and_learns(corpus, tmp_path):
    run(tiny(corpus, tmp_path / "run", "waveform with adversary", steps=3))
    entries = read_metrics(tmp_path / "run")
    assert ["discriminator" in entry for entry in entries] == [False, True, True]
    first = tmp_path / "run" / "checkpoints" / "step-00000002" / "engines"
    assert sorted(path.name for path in first.iterdir()) == ["discriminator", "model"]
    assert entries[1]["discriminator"] != entries[2]["discriminator"]


@torch.no_grad()
@pytest.mark.parametrize("values", [STFT, WAVEFORM])
def test_reconstruction_ignores_padding(values):
    torch.manual_seed(0)
    recipe = parse(ScalarRecipe, {"out": "x", "steps": 1, "corpora": ["x"], "autoencoder": values}, "the test")
    model = ScalarAutoencoder(recipe.autoencoder).eval()
    loss = ReconstructionLoss(model)
    clip, lengths = 0.3 * torch.randn(1, 1900), torch.tensor([1900])

    def value(waveforms: torch.Tensor) -> float:
        waveforms = model.pad(waveforms)
        return float(loss(model(waveforms, lengths)[1], waveforms, lengths)["reconstruction"])

    assert value(clip) == pytest.approx(value(torch.nn.functional.pad(clip, (0, 3000))), rel=1e-4)


def test_gains_stay_in_their_range():
    gains = random_gains(1000, -12.0)
    assert gains.shape == (1000, 1)
    assert 10 ** (-12 / 20) <= gains.min() < 0.3 and 1.3 < gains.max() <= 10 ** (3 / 20)


def test_other_data_is_refused_on_resume(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path / "run", "stft", steps=2)
    run(recipe)
    lines = (corpus / "clips.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "less").mkdir()
    for path in corpus.glob("*.wav"):
        (tmp_path / "less" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "less" / "clips.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="corpora"):
        run(replace(recipe, corpora=(str(tmp_path / "less"),), steps=3), resume=True)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"batch": 0}, "batch"),
        ({"corpora": []}, "'corpora' must not be empty"),
        ({"quietest_db": 6.0}, "quietest_db"),
        ({"autoencoder": {"front_end": "stft"}}, "num_bands must be 481"),
        ({"autoencoder": {"sample_rate": 16000}}, "sample_rate"),
        ({"adversry": {}}, "adversary"),
    ],
)
def test_bad_recipes_are_refused(corpus, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        tiny(corpus, tmp_path, "stft", **values)


@pytest.mark.parametrize("name", ["starter", "full"])
def test_shipped_recipes(name):
    recipe = load_recipe(RECIPES / name / "scalar.yaml")
    assert recipe.autoencoder.samples_per_frame == 960
    assert recipe.autoencoder.latent_hidden_dim == 136
    assert recipe.autoencoder.front_end == {"starter": "stft", "full": "waveform"}[name]
