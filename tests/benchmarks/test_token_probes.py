"""Probes on the tokens of a tiny codec with random weights: what is asked, of which clips, and what is written."""

import json

import numpy as np
import pytest
import soundfile
import torch

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.token_store import TokenStore, build_store
from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoderConfig
from codec.io.errors import UserError
from evaluation.token_measures.coded import frame_vectors
from tests.factories.evaluation import hiss, hum
from tests.factories.uniaudio import tiny_codec

COUNTS = {"train": 30, "dev": 10, "test": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, codec/ and tokens/: noise or a hum, of one of two levels in dB, and the constant label `room`."""
    folder = tmp_path_factory.mktemp("probes")
    rng, clips = np.random.default_rng(0), []
    (folder / "corpus").mkdir()
    for split, count in COUNTS.items():
        for i in range(count):
            level = (-30, -10)[i // 2 % 2]
            labels = {"class": ("hiss", "hum")[i % 2], "level_db": str(level), "room": "none"}
            wave = (hiss, hum)[i % 2](rng, 0.3) * 10 ** (level / 20)
            soundfile.write(folder / "corpus" / f"{split}{i}.wav", wave, 24_000)
            clips.append(Clip(f"{split}-{i}", f"{split}{i}.wav", "sound", split, labels=labels))
    (folder / "corpus/clips.jsonl").write_text("".join(clip.to_json() + "\n" for clip in clips))
    codec = tiny_codec()
    codec.save_pretrained(folder / "codec")
    build_store(read_corpora([folder / "corpus"]), codec, folder / "tokens")
    return folder


def test_rows_and_file(benchmark_module, folder, tmp_path):
    token_probes = benchmark_module("token_probes")
    rows = token_probes.run(folder / "tokens", folder / "codec", [folder / "corpus"], out=tmp_path / "probes.json")
    assert [(row["label"], row["metric"]) for row in rows] == [("class", "accuracy"), ("level_db", "R2")]  # not room
    for row in rows:
        assert (row["train_clips"], row["test_clips"]) == (30, 20)
        names = ("descriptive", "structural", token_probes.ALL, token_probes.MEL)
        assert all(row[name]["n"] == 20 and row[name]["stderr"] is not None for name in names)
    assert rows[0]["chance"] == 0.5 and rows[0]["mel"]["value"] == 1.0 and rows[1]["mel"]["value"] > 0.9
    assert rows[0]["all streams"]["value"] > 0.9  # random codebooks tell noise from a hum too
    assert json.loads((tmp_path / "probes.json").read_text())["probes"] == rows


def test_a_music_expert_is_probed_beside_the_tokens(benchmark_module, folder):
    torch.manual_seed(0)
    sizes = MusicEncoderConfig(
        dim=16, heads=2, feed_forward=24, layers=2, kernel=5, channels=4, mel_bands=18, fft_size=512
    )
    taps = {"music_acoustic": (1,), "music_semantic": (2,)}
    expert = load_expert(ExpertConfig("music", "conformer", taps=taps, sizes=sizes))
    rows = benchmark_module("token_probes").run(folder / "tokens", folder / "codec", [folder / "corpus"], expert=expert)
    for state in ("lower state", "upper state"):
        assert rows[0][state]["value"] > 0.9 and rows[0][state]["n"] == 20  # random layers tell noise from a hum too


def test_vectors_are_those_of_each_clip_alone(folder):
    codec = tiny_codec()
    tokens = [clip.tokens for clip in list(TokenStore(folder / "tokens"))[:5]]
    for stream in ("descriptive", "structural"):
        for found, clip in zip(frame_vectors(codec, stream, tokens), tokens, strict=True):
            torch.testing.assert_close(found, codec.dequantise(stream, clip[stream].T[None])[0])


def test_speakers_are_told_apart_within_training_clips(benchmark_module):
    clips = [
        Clip(f"{split}-{i}", "x.wav", "speech", split, text=f"word{i % 3}", speaker=f"{split} {i % 10}")
        for split, count in (("train", 100), ("dev", 30), ("test", 30))
        for i in range(count)
    ]
    asked = {question.label: question for question in benchmark_module("token_probes").questions(clips)}
    assert set(asked) == {"words", "speaker"}
    assert [len(split) for split in asked["speaker"].splits] == [60, 20, 20]
    chosen = [clip for split in asked["speaker"].splits for clip, _ in split]
    assert len({clip.id for clip in chosen}) == 100 and all(clip.split == "train" for clip in chosen)
    for split in asked["speaker"].splits:
        assert {name for _, name in split} == {f"train {k}" for k in range(10)}
    assert [len(split) for split in asked["words"].splits] == [100, 30, 30]


def test_a_kind_without_enough_clips_is_named(benchmark_module, folder):
    with pytest.raises(UserError, match="of music has 20 test clips"):
        benchmark_module("token_probes").run(folder / "tokens", folder / "codec", kinds=["music"])


def test_another_codec_is_refused(benchmark_module, folder, tmp_path):
    tiny_codec(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="name the codec that made them"):
        benchmark_module("token_probes").run(folder / "tokens", tmp_path / "other")
