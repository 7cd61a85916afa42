"""Training an ALMTokenizer: both stages learn and resume bit for bit, each ablation trains, one model has all rates."""

import json
import re
import shlex
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from tests import ROOT
from tests.factories.one_stream.almtokenizer import MEAN_POOLED, ON_SAMPLES, SMALL
from training.codec.almtokenizer.train_almtokenizer import ALMTokenizerRecipe, drawn_window, run
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

ADVERSARY = {"start_step": 2, "fft_sizes": [64, 128], "channels": 4}
NEXT_QUERY = {"layers": 1, "dim": 16, "heads": 2}
PRIORS = [{"role": "speech_text"}, {"role": "music"}]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve gliding tones of different lengths."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        time = np.arange(rng.integers(5000, 12000)) / 24000
        wave = 0.4 * np.sin(2 * np.pi * np.cumsum(rng.uniform(200, 3000) * (1 + time)) / 24000)
        soundfile.write(folder / f"{number}.wav", wave, 24000)
        split = "dev" if number < 4 else "train"
        lines.append({"id": f"tone-{number}", "path": f"{number}.wav", "kind": "sound", "split": split})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tiny(corpus: Path, out: Path, config=SMALL, **changes) -> ALMTokenizerRecipe:
    """The first stage; with `init` the second."""
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "stage": "autoencoder",
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "batch": 3,
        "crop_seconds": 0.3,
        "optimiser": {"lr": 3e-3, "warmup_steps": 2, "weight_decay": 0.0},
    }
    if "init" in changes:
        values |= {"stage": "quantiser", "fit_batches": 4, "priors": PRIORS, "next_query": NEXT_QUERY}
        values |= {"adversary": ADVERSARY}
    else:
        values |= {"tokenizer": asdict(replace(config, codes=8))}
    return parse(ALMTokenizerRecipe, values | changes, "the test")


@pytest.fixture(scope="module")
def first(corpus, tmp_path_factory):
    """A run of the first stage, trained for a while."""
    recipe = tiny(corpus, tmp_path_factory.mktemp("runs") / "first", steps=60, save_every=60, validate_every=20)
    return run(recipe).parent


def test_the_first_stage_learns_and_has_no_codes_yet(first):
    entries = read_metrics(first)
    held_out = [entry["val/loss"] for entry in entries if "val/loss" in entry]
    assert len(held_out) == 3 and held_out[-1] < held_out[0]
    trained = [entry for entry in entries if "masked" in entry]
    assert trained[-1]["masked"] < 0.5 * trained[0]["masked"] and "commitment" not in trained[0]
    assert trained[0]["loss"] == pytest.approx(trained[0]["reconstruction"] + trained[0]["masked"], rel=1e-5)
    assert not any("val/masked" in entry or "codes_usage" in entry for entry in entries)
    with pytest.raises(UserError, match="codebooks are not initialised"):
        load_tokenizer(first / "model").encode(torch.zeros(1, 100))


def test_the_second_stage_makes_a_tokenizer_of_every_rate(corpus, first, tmp_path):
    folder = run(tiny(corpus, tmp_path / "second", init=str(first), steps=8, save_every=8, validate_every=4))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenizer_type == "almtokenizer" and tokenizer.streams[0].codebooks == 3
    wave = 0.4 * torch.sin(torch.arange(9_000) * torch.linspace(0.05, 0.3, 9_000))
    for window in (2, 6, 10):
        made = tokenizer.with_window(window).encode(wave[None])[0]
        assert made["queries"].shape == (3, -(-9_000 // (320 * window)))
    entries = read_metrics(folder.parent)
    trained = next(entry for entry in entries if "adversarial" in entry)
    total = trained["reconstruction"] + 0.1 * trained["next_query"] + trained["commitment"]
    total += trained["adversarial"] + 2 * trained["features"]
    assert trained["loss"] == pytest.approx(total, rel=1e-5) and trained["codes_perplexity"] > 1
    assert "masked" not in trained and not any("adversarial" in entry for entry in entries if entry["step"] == 1)
    assert any("val/next_query" in entry for entry in entries)
    # Its encoder is the first stage's, trained on.
    before, after = (load_file(f / "model.safetensors") for f in (first / "model", folder))
    assert before.keys() == after.keys()
    moved = (before["patchify.convolutions.0.weight"] - after["patchify.convolutions.0.weight"]).abs().max()
    assert 0 < moved < 0.1


CASES = {
    "queries": (SMALL, {}),
    "on samples": (ON_SAMPLES, {"adversary": ADVERSARY}),
    "mean pooled": (MEAN_POOLED, {}),
    "nothing hidden": (SMALL, {"masked": {"share": 0.0}}),
}


@pytest.mark.parametrize("case", [*CASES, "second", "no prior", "not predicted", "8 codebooks"])
def test_interrupted_equals_uninterrupted(case, corpus, first, tmp_path):
    config, changes = CASES.get(case, (SMALL, {"init": str(first)}))
    changes = changes | {
        "no prior": {"priors": []},
        "not predicted": {"next_query": {"weight": 0.0}},
        "8 codebooks": {"codebooks": 8},
    }.get(case, {})
    whole = run(tiny(corpus, tmp_path / "whole", config, **changes))
    run(tiny(corpus, tmp_path / "cut", config, **changes))
    (tmp_path / "cut" / "model").unlink()
    last = tmp_path / "cut" / "checkpoints" / "step-00000004"
    last.rename(tmp_path / "set_aside")  # as if killed between the two checkpoints
    resumed = run(tiny(corpus, tmp_path / "cut", config, **changes), resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not any("parametrizations" in name for name in ours)
    kept = [
        [{k: v for k, v in entry.items() if k != "time" and "per_second" not in k} for entry in read_metrics(folder)]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert kept[0] == kept[1]
    assert ("masked" in kept[0][0]) == (case in CASES and case != "nothing hidden")
    assert ("next_query" in kept[0][0]) == (case not in CASES and case != "not predicted")
    assert len([name for name in ours if name.endswith("_codebook.embed")]) == (8 if case == "8 codebooks" else 3)


def test_updates_draw_windows_of_the_whole_range():
    drawn = [drawn_window(1, step, SMALL) for step in range(1, 400)]
    assert set(drawn) == set(range(2, 11)) and drawn == [drawn_window(1, step, SMALL) for step in range(1, 400)]
    assert drawn != [drawn_window(2, step, SMALL) for step in range(1, 400)]
    assert min(drawn.count(window) for window in range(2, 11)) > 25
    assert {drawn_window(1, step, replace(SMALL, least_window=6, most_window=6)) for step in range(9)} == {6}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"stage": "quantiser"}, "tokenizer: the sizes are those of init"),
        ({"stage": "quantiser", "tokenizer": None}, "needs the run of stage autoencoder"),
        ({"priors": PRIORS}, "leave them out of autoencoder"),
        ({"stage": "decoder"}, "stage"),
        ({"mask_share": 0.3}, "mask_share"),
        ({"next_query": {"dim": 30}}, "next_query.heads"),
    ],
)
def test_bad_recipes_are_refused(corpus, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        tiny(corpus, tmp_path, **values)


def test_too_few_queries_for_the_codes_and_no_first_stage_are_said(corpus, first, tmp_path):
    large = tiny(corpus, tmp_path / "first", replace(SMALL, codes=500), steps=1)
    large = replace(large, tokenizer=replace(large.tokenizer, codes=500))
    with pytest.raises(UserError, match="too few for 500 codes; take more batches"):
        run(tiny(corpus, tmp_path / "second", init=str(run(large)), fit_batches=1))
    with pytest.raises(UserError, match="no model there"):
        run(tiny(corpus, tmp_path / "third", init=str(tmp_path / "nowhere")))


def test_every_ablation_of_the_script_differs_in_one_group_of_keys():
    script = (ROOT / "recipes/starter/almtokenizer_ablations.sh").read_text()
    assert len(script.splitlines()) <= 20
    found = {}
    for line in re.findall(r"^one (?!\$)(.+)$", script, re.MULTILINE):
        name, stage, *changes = [part for part in shlex.split(line) if not part.startswith("init=")]
        path = ROOT / f"recipes/starter/almtokenizer_{stage}.yaml"
        plain, ablation = load_recipe(path), load_recipe(path, changes)
        found[name] = [f.name for f in fields(plain) if getattr(plain, f.name) != getattr(ablation, f.name)]
    assert found == {
        "whole_1": [],
        "no_masking_1": ["masked"],
        "mean_pool_1": ["tokenizer"],
        "one_window_1": ["tokenizer"],
        "no_prior": ["priors"],
        "no_next_query": ["next_query"],
    }
