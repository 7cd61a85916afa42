"""What an evaluation asks of a codec: a name, an identity, a bit rate, and the waveform that it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torchaudio.functional import resample

from codec.tokenizer import AudioTokenizer
from codec.tokens import SAMPLE_RATE

# A Kaiser-windowed sinc, flat to 0.95 of the band; part of what is measured, so it is fixed.
_FILTER = {"lowpass_filter_width": 64, "rolloff": 0.9475937167399596, "resampling_method": "sinc_interp_kaiser"}


@dataclass(frozen=True)
class Reconstruction:
    """What a codec gives back for one clip."""

    # (n,) float32 at 24 kHz, as long as the clip, and aligned with it: the codec's constant delay is taken out
    waveform: np.ndarray = field(repr=False)
    # bits that were sent, without any container; None where the bit rate is constant
    bits: int | None = None


class TestedCodec(ABC):
    """A codec under test."""

    __test__: ClassVar[bool] = False  # no test case of pytest, whatever its name
    # as results and reports call it
    name: str
    # what decides its waveforms (weights, settings, versions): the key of everything cached
    fingerprint: str
    # nominal; None where each clip says it (`Reconstruction.bits`), or nobody does
    bits_per_second: float | None = None
    # of a learned codec
    parameters: int = 0
    # makes the codec's tokens; None for codecs of other programs
    tokenizer: AudioTokenizer | None = None

    @abstractmethod
    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        """Through the codec and back.

        Args:
            waveforms: (n,) float32 each, at 24 kHz, n > 0.
        """


def resampled(waveform: np.ndarray, source: int, target: int) -> np.ndarray:
    """(n,) at one rate -> (ceil(n * target / source),) float32 at another, aligned."""
    if source == target:
        return np.asarray(waveform, dtype=np.float32)
    return resample(
        torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)), source, target, **_FILTER
    ).numpy()


def from_24_khz(waveform: np.ndarray, rate: int) -> np.ndarray:
    """(n,) at 24 kHz -> the same at a codec's rate."""
    return resampled(waveform, SAMPLE_RATE, rate)


def to_24_khz(waveform: np.ndarray, rate: int, length: int, delay: int = 0) -> np.ndarray:
    """What a codec gave at its own rate -> (length,) at 24 kHz; silence stands for samples that it did not give.

    Args:
        waveform: (m,) at `rate`.
        rate: Samples per second.
        length: Samples wanted at 24 kHz.
        delay: Samples at `rate` by which the codec is late.
    """
    made = resampled(np.asarray(waveform)[delay:], rate, SAMPLE_RATE)[:length]
    return np.pad(made, (0, length - len(made)))
