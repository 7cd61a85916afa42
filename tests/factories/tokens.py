"""Tokens of ReasoningCodec's two streams, and how many frames a clip has of each."""

from __future__ import annotations

from torch import Tensor

from codec.streams import StreamSpec
from codec.tokens import SAMPLE_RATE, AudioTokens


def two_streams(descriptive: int | None, structural: int | None) -> tuple[StreamSpec, StreamSpec]:
    """ReasoningCodec's streams with so many codes."""
    return StreamSpec("descriptive", 5.0, 8, descriptive), StreamSpec("structural", 12.5, 8, structural)


def descriptive_frames(num_samples: int) -> int:
    return two_streams(None, None)[0].num_frames(num_samples, SAMPLE_RATE)


def structural_frames(num_samples: int) -> int:
    return two_streams(None, None)[1].num_frames(num_samples, SAMPLE_RATE)


def least_samples(frames: int) -> int:
    return two_streams(None, None)[1].least_samples(frames, SAMPLE_RATE)


def both(descriptive: Tensor, structural: Tensor, num_samples: int, fingerprint: str) -> AudioTokens:
    return AudioTokens({"descriptive": descriptive, "structural": structural}, num_samples, fingerprint)
