"""Training an X-Codec: it learns, it resumes bit for bit, with any teacher and with none."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from codec.xcodec.codec import XCodecOutput
from tests.factories.one_stream.xcodec import SMALL, WITH_EXPERT, WITHOUT_TEACHER, small_xcodec
from training.codec.losses.spectral_loss import MultiResolutionSpectralLoss
from training.codec.train_xcodec import XCodecRecipe, codec_losses, drawn_codebooks, run
from training.metrics import read_metrics
from training.recipe import parse

ADVERSARY = {"start_step": 2, "fft_sizes": [64, 128], "channels": 4}
CASES = {
    "speech model": (SMALL, None),
    "expert with adversary": (WITH_EXPERT, ADVERSARY),
    "no teacher": (WITHOUT_TEACHER, ADVERSARY),
}


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


def tiny(corpus: Path, out: Path, case: str, **changes) -> XCodecRecipe:
    codec, adversary = CASES[case]
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "batch": 3,
        "crop_seconds": 0.3,
        "codebooks_drawn": [1, 2, 4],
        "codec": asdict(replace(codec, codebooks=4, codes=8, kmeans_init=True)),
        "adversary": adversary,
        "optimiser": {"lr": 3e-3, "warmup_steps": 2, "weight_decay": 0.0},
    }
    return parse(XCodecRecipe, values | changes, "the test")


def test_learns_and_the_result_loads(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path / "run", "expert with adversary", steps=40, save_every=40, validate_every=10)
    codec = load_tokenizer(run(replace(recipe, adversary=None)))
    assert codec.tokenizer_type == "xcodec" and codec.streams[0].codebooks == 4
    assert not any("parametrizations" in name for name in codec.state_dict())
    entries = read_metrics(tmp_path / "run")
    held_out = [entry for entry in entries if "val/loss" in entry]
    assert len(held_out) == 4 and held_out[-1]["val/loss"] < held_out[0]["val/loss"]
    assert held_out[-1]["val/semantic"] < 0.5 * held_out[0]["val/semantic"]
    trained = next(entry for entry in entries if "commitment" in entry)
    total = trained["reconstruction"] + 100 * trained["semantic"] + trained["commitment"]
    assert trained["loss"] == pytest.approx(total, rel=1e-5) and "codes_usage" in trained


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
    kept = [
        [{k: v for k, v in entry.items() if k != "time" and "per_second" not in k} for entry in read_metrics(folder)]
        for folder in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("case", ["speech model", "no teacher"])
def test_a_trained_codec_goes_on_learning(case, corpus, tmp_path):
    first = run(tiny(corpus, tmp_path / "first", case))
    trained = load_tokenizer(first)
    for level in trained.quantiser.layers:  # as some releases are
        level._codebook.cluster_size.zero_(), level._codebook.embed_avg.zero_()
    trained.with_codebooks(2).save_pretrained(tmp_path / "released")
    still = {"lr": 1e-12, "warmup_steps": 0, "weight_decay": 0.0}
    changes = {"init": str(tmp_path / "released"), "codec": None, "adversary": None, "steps": 1, "optimiser": still}
    second = load_file(run(tiny(corpus, tmp_path / "second", case, **changes)) / "model.safetensors")
    before = load_file(first / "model.safetensors")
    assert before.keys() == second.keys()
    for name, value in second.items():
        if "_codebook" not in name:
            torch.testing.assert_close(value, before[name], atol=1e-5, rtol=1e-5, msg=name)
        elif name.endswith("embed"):  # averages begin from the codes, not from nothing
            assert (value - before[name]).norm() < 0.3 * before[name].norm(), name
    with pytest.raises(UserError, match="has other sizes than this recipe states"):
        run(tiny(corpus, tmp_path / "third", case, **changes | {"codec": {"codes": 16}}))


def test_the_teacher_stays_as_it_is_and_a_baseline_has_no_semantic_loss(corpus, tmp_path):
    run(tiny(corpus, tmp_path / "run", "speech model"))
    folders = [tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "model" for step in (2, 4)]
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    frozen = {name for name in before if name.startswith("teacher.")}
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in before.keys() - frozen)
    entries = read_metrics(run(tiny(corpus, tmp_path / "baseline", "no teacher")).parent)
    assert not any("semantic" in name for entry in entries for name in entry)


def test_updates_draw_their_codebooks_and_the_first_begins_all(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path, "no teacher")
    drawn = [drawn_codebooks(recipe, 4, step) for step in range(1, 200)]
    assert drawn[0] == 4 and set(drawn) == {1, 2, 4} and drawn == [drawn_codebooks(recipe, 4, s) for s in range(1, 200)]
    assert min(drawn.count(count) for count in (1, 2, 4)) > 40
    assert {drawn_codebooks(replace(recipe, codebooks_drawn=(2, 8)), 4, step) for step in range(2, 50)} == {2}


@pytest.mark.parametrize("case", ["speech model", "no teacher"])
def test_unused_codebooks_rest_and_a_dead_code_comes_alive(case):
    codec = small_xcodec(replace(CASES[case][0], codes=16, dead_code_threshold=2.0)).train()
    books = [level._codebook for level in codec.quantiser.layers]
    books[0].embed[0, 3] = 1e6  # nobody is near it
    books[0].cluster_size.zero_()
    before = [book.embed.clone() for book in books]
    codec(0.3 * torch.randn(2, 40 * codec.config.hop), codebooks=2)
    assert not any(torch.equal(book.embed, old) for book, old in zip(books[:2], before[:2], strict=True))
    assert all(torch.equal(book.embed, old) for book, old in zip(books[2:], before[2:], strict=True))
    assert books[0].embed[0, 3].abs().max() < 1e3  # a vector of the batch, and it stays one:
    codec(0.3 * torch.randn(2, 40 * codec.config.hop), codebooks=2)
    assert books[0].embed[0, 3].abs().max() < 1e3


def test_losses_ignore_what_lies_beyond_a_clip():
    codec = small_xcodec()
    spectral = MultiResolutionSpectralLoss(codec.sample_rate)
    hop, lengths = codec.config.hop, torch.tensor([20 * codec.config.hop - 100])
    clip, decoded = 0.3 * torch.randn(2, 1, 20 * hop)
    features, target = torch.randn(2, 1, 32, 20)

    def losses(pad, fill):
        def more(x, frames):
            return torch.nn.functional.pad(x, (0, pad * frames), value=fill)

        made = XCodecOutput(more(decoded, hop), None, torch.ones(4), more(features, 1), target.new_zeros(0))
        made.target = more(target, 1) * 1.0
        if fill:
            made.target[..., 20:] = -fill
        return codec_losses(codec, spectral, made, torch.nn.functional.pad(clip, (0, pad * hop)), lengths)

    alone, padded = losses(0, 0.0), losses(15, 7.0)
    assert alone.keys() == padded.keys() and "semantic" in alone
    for name, value in alone.items():
        assert float(value) == pytest.approx(float(padded[name]), rel=1e-4), name


@pytest.mark.parametrize(
    "values, message",
    [
        ({"codebooks_drawn": []}, "'codebooks_drawn' must not be empty"),
        ({"codebooks_drawn": [8]}, "only 4 codebooks"),
        ({"codec": {"codebooks_used": 2}}, "codebooks_used"),
        ({"semantic_wait": 1.0}, "semantic_weight"),
        ({"codec": {"upsampling_ratios": [8, 5, 4]}}, "same product"),
    ],
)
def test_bad_recipes_are_refused(corpus, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        tiny(corpus, tmp_path, "no teacher", **values)
