"""An encoder that learns to write: it learns, it resumes bit for bit, and the codec can listen through it."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder
from codec.io.errors import UserError
from tests import ROOT
from training.codec.experts.train_ctc import CTCRecipe, WrittenSpeech, padded, run, spoken_clips
from training.metrics import read_metrics
from training.recipe import load_recipe, parse

SIZES = {"dim": 32, "heads": 2, "feed_forward": 64, "layers": 2, "kernel": 5, "channels": 4, "mel_bands": 16}
TONES = {"a": 300, "b": 900, "c": 2400}  # Hz of each letter of a language of tones


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Forty utterances whose letters are tones of 0.1 s; besides one that is long, one too fast, and a sound."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []

    def add(name, text, seconds=0.1, kind="speech", split="train"):
        time = np.arange(int(seconds * 24000)) / 24000
        waves = [0.3 * np.sin(2 * np.pi * TONES.get(letter, 40) * time) for letter in text] or [np.ones(9000)]
        soundfile.write(folder / f"{name}.wav", np.concatenate(waves) + 0.001 * rng.standard_normal(), 24000)
        lines.append({"id": name, "path": f"{name}.wav", "kind": kind, "split": split, "text": text})

    for number in range(40):
        letters = "".join(rng.choice(list("abc"), rng.integers(3, 8)))
        add(f"tones-{number}", letters, split="dev" if number < 8 else "train")
    add("long", "abcabcabcabc", seconds=0.2)
    add("fast", "aaaa", seconds=0.03)
    add("sound", "", kind="sound")
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def tiny(corpus, out, **changes):
    values = {
        "out": str(out),
        "corpora": [str(corpus)],
        "steps": 4,
        "save_every": 2,
        "keep": 3,
        "log_every": 1,
        "validate_every": 2,
        "encoder": SIZES | {"fft_size": 512, "hop": 120},
        "ctc": {"depths": [1, -1], "mask_share": 0.1, "span": 2, "bands": 2},
        "batch": 4,
        "clip_seconds": 1.0,
        "statistics_batches": 2,
        "held_out_batches": 2,
        "optimiser": {"lr": 5e-3, "warmup_steps": 5, "weight_decay": 0.0},
        "engine": {"micro_batches": 2},
    }
    return parse(CTCRecipe, values | changes, "the test")


def test_learns_to_write_and_the_codec_can_listen(corpus, tmp_path, capsys):
    recipe = tiny(corpus, tmp_path / "run", steps=100, save_every=100, validate_every=50)
    model = run(recipe)
    first, last = (entry for entry in read_metrics(tmp_path / "run") if "val/letters_wrong" in entry)
    assert last["val/letters_wrong"] < 0.2 and last["val/loss"] < first["val/loss"]
    assert (
        "2 clips of speech that are longer than 1 s (clip_seconds), or too short for their text"
        in capsys.readouterr().out
    )
    assert MusicEncoder.from_pretrained(model).config == recipe.encoder
    expert = load_expert(ExpertConfig("phone", "conformer", str(tmp_path / "run"), {"phone": (1,)}))
    assert expert.features(torch.zeros(1, 24000))["phone"].shape == (1, 32, 51)


def test_interrupted_equals_uninterrupted(corpus, tmp_path):
    whole = run(tiny(corpus, tmp_path / "whole"))
    run(tiny(corpus, tmp_path / "cut"))
    (tmp_path / "cut" / "model").unlink()
    (tmp_path / "cut" / "checkpoints" / "step-00000004").rename(tmp_path / "set_aside")  # as if killed before it
    resumed = run(tiny(corpus, tmp_path / "cut"), resume=True)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_clips_are_whole_and_end_in_silence(corpus, tmp_path):
    recipe = tiny(corpus, tmp_path)
    train, held_out = spoken_clips(recipe, WrittenSpeech(recipe))
    assert (len(train.clips), len(held_out.clips)) == (32, 8)
    crops = train.batch(0)
    waveforms, frames = padded(crops, 480)
    assert waveforms.shape[1] % 480 == 0 and frames.tolist() == [crop.length // 480 for crop in crops]
    for waveform, crop in zip(waveforms, crops, strict=True):
        assert crop.length == round(0.1 * 24000) * len(crop.clip.text)
        assert torch.equal(waveform[: crop.length], crop.load()) and not waveform[crop.length :].any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ctc": {"depths": []}}, "name a state that letters are read off"),
        ({"corpus_shares": [1, 2]}, "give each of the 1 corpora a number"),
        ({"encoder": {"sample_rate": 16000}}, "sample_rate"),
        ({"engine": {"precision": "bf16", "zero_stage": 1}}, "use mixed"),
    ],
)
def test_bad_recipes_are_refused(corpus, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        tiny(corpus, tmp_path, **values)


def test_what_cannot_be_trained_is_named_before_it_begins(corpus, tmp_path):
    with pytest.raises(UserError, match=r"an encoder of 2 layers has the states 0 to 2"):
        run(tiny(corpus, tmp_path / "deep", ctc={"depths": [3]}))
    with pytest.raises(UserError, match=r"no clip to train on.* 42 clips of speech that are longer than 0.1 s"):
        run(tiny(corpus, tmp_path / "short", clip_seconds=0.1))


def test_the_shipped_recipe_serves_as_phone_expert():
    recipe = load_recipe(ROOT / "recipes" / "starter" / "ctc_expert.yaml")
    assert recipe.encoder.samples_per_frame == 480 and max(recipe.ctc.depths) == recipe.encoder.layers
