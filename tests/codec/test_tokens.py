"""Audio tokens: lengths, files, damage."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.io.errors import UserError
from codec.streams import StreamSpec
from codec.tensor_files import save_tensors
from codec.tokens import AudioTokens
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tokens import both, descriptive_frames, structural_frames, two_streams

TOKENIZER = FakeTokenizer()


def make(num_samples):
    generator = torch.Generator().manual_seed(num_samples)
    return both(
        torch.randint(0, 256, (8, descriptive_frames(num_samples)), generator=generator),
        torch.randint(0, 256, (8, structural_frames(num_samples)), generator=generator),
        num_samples,
        "abc",
    )


def test_frame_counts_of_the_published_model():
    assert [(descriptive_frames(24_000 * s), structural_frames(24_000 * s)) for s in (1, 10, 30)] == [
        (6, 13),
        (51, 126),
        (151, 376),
    ]


@pytest.mark.parametrize(
    "ids", [torch.zeros(8, 0, dtype=torch.int64), torch.zeros(8, dtype=torch.int64), torch.zeros(8, 3)]
)
def test_the_shape_is_checked(ids):
    tokens = make(30_123)
    with pytest.raises(ValueError, match="structural ids must be int64 of shape"):
        both(tokens["descriptive"], ids, 30_123, "abc")
    with pytest.raises(ValueError, match="without a stream"):
        AudioTokens({}, 30_123, "abc")


@given(st.integers(1, 40), st.integers(1, 90))
def test_frames_without_a_known_length_become_tokens(t5, t12):
    frames = {"descriptive": torch.ones(8, t5, dtype=torch.int64), "structural": torch.zeros(8, t12, dtype=torch.int64)}
    tokens = TOKENIZER.from_frames(frames)
    assert tokens["structural"].shape[1] == t12
    assert tokens["descriptive"].shape[1] == descriptive_frames(tokens.num_samples)
    assert structural_frames(tokens.num_samples) == t12 > structural_frames(max(1, tokens.num_samples - 1)) - 1


@given(st.integers(1, 24_000 * 60), st.sampled_from(["descriptive", "structural"]))
def test_another_number_of_frames_than_the_length_has_is_refused(num_samples, name):
    tokens = make(num_samples)
    tokens = AudioTokens(tokens.streams, num_samples, TOKENIZER.fingerprint)
    longer = torch.cat([tokens[name], tokens[name][:, :1]], dim=1)
    TOKENIZER.require_own(tokens)
    with pytest.raises(UserError, match=f"here: .* {name} frames for a clip of {num_samples} samples"):
        TOKENIZER.require_own(AudioTokens({**tokens.streams, name: longer}, num_samples, TOKENIZER.fingerprint), "here")


def test_a_file_gives_back_the_same_tokens(tmp_path):
    tokens = make(30_123)
    tokens.save(tmp_path / "clip.safetensors")
    assert AudioTokens.load(tmp_path / "clip.safetensors").equal(tokens)


def test_damaged_and_missing_files_are_named(tmp_path):
    make(30_123).save(tmp_path / "clip.safetensors")
    data = (tmp_path / "clip.safetensors").read_bytes()
    for name, content in {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello there"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            AudioTokens.load(tmp_path / name)
    with pytest.raises(UserError, match="nothing_here"):
        AudioTokens.load(tmp_path / "nothing_here")


@pytest.mark.parametrize("num_samples", ["0", "-1", "1" * 400, "1" * 5000, "many", "1.5"])
def test_a_length_that_no_clip_has_is_refused(tmp_path, num_samples):
    tokens = make(30_123)
    tensors = {"descriptive": tokens["descriptive"], "structural": tokens["structural"]}
    save_tensors(tensors, tmp_path / "clip.safetensors", num_samples=num_samples, fingerprint="abc")
    with pytest.raises(UserError, match="clip.safetensors: not an audio-token file"):
        AudioTokens.load(tmp_path / "clip.safetensors")


def test_what_is_no_file_is_answered_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="no ordinary file"):
            AudioTokens.load(tmp_path / name)


@pytest.mark.parametrize(("kind", "value"), [("descriptive", 256), ("structural", 512), ("structural", -3)])
def test_ids_beyond_the_codes_are_named(kind, value):
    tokens = make(30_123)
    tokens.require_streams(two_streams(256, 512), "whole")
    tokens[kind][5, 2] = value
    with pytest.raises(UserError, match=f"here: holds the {kind} id {value}"):
        tokens.require_streams(two_streams(256, 512), "here")


def test_a_file_of_before_streams_had_names_is_read(tmp_path):
    tokens = make(30_123)
    save_tensors(dict(tokens.streams), tmp_path / "clip.safetensors", num_samples="30123", fingerprint="abc")
    assert AudioTokens.load(tmp_path / "clip.safetensors").equal(tokens)


def test_other_streams_are_named():
    tokens = make(30_123)
    with pytest.raises(UserError, match="here: holds the streams descriptive, structural, and the tokenizer has codes"):
        tokens.require_streams([StreamSpec("codes", 50.0, 8, 1024)], "here")
    low, high = two_streams(256, 256)
    with pytest.raises(UserError, match="its structural frames have 8 ids, and the tokenizer has 4 codebooks"):
        tokens.require_streams([low, StreamSpec(high.name, high.rate, 4, 256)], "here")
