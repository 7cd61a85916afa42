"""Audio tokens: lengths, files, damage."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codec.io.errors import UserError
from codec.io.tensor_files import save_tensors
from codec.tokens import AudioTokens, descriptive_frames, structural_frames


def make(num_samples):
    generator = torch.Generator().manual_seed(num_samples)
    return AudioTokens(
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


@given(st.integers(1, 24_000 * 60))
def test_the_shape_is_checked(num_samples):
    tokens = make(num_samples)
    with pytest.raises(ValueError, match="structural ids of a clip"):
        AudioTokens(tokens.descriptive, tokens.structural[:, :-1], num_samples, "abc")


@given(st.integers(1, 40), st.integers(1, 90))
def test_frames_without_a_known_length_become_tokens(t5, t12):
    tokens = AudioTokens.from_frames(torch.ones(8, t5, dtype=torch.int64), torch.zeros(8, t12, dtype=torch.int64), "f")
    assert tokens.structural.shape[1] == t12


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


@pytest.mark.parametrize("num_samples", ["0", "-1", "1" * 400, "1" * 5000, "many", "30124000", "1.5"])
def test_a_length_that_no_clip_has_is_refused(tmp_path, num_samples):
    tokens = make(30_123)
    tensors = {"descriptive": tokens.descriptive, "structural": tokens.structural}
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
    tokens.require_codes((256, 512), "whole")
    getattr(tokens, kind)[5, 2] = value
    with pytest.raises(UserError, match=f"here: holds the {kind} id {value}"):
        tokens.require_codes((256, 512), "here")
