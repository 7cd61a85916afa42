"""Audio tokens: what a tokenizer makes of a waveform, and what the language model reads and writes."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codec.io.errors import UserError, of_system
from codec.io.tensor_files import save_tensors

SAMPLE_RATE = 24_000  # samples per second of every waveform that enters or leaves a tokenizer
DESCRIPTIVE_RATE = 5.0  # frames per second
STRUCTURAL_RATE = 12.5  # frames per second
NUM_CODEBOOKS = 8
LONGEST = 2**50  # samples; a number of more is damage


def descriptive_frames(num_samples: int) -> int:
    """Number of 5 Hz frames of a clip of `num_samples` samples at 24 kHz."""
    return math.floor(num_samples * DESCRIPTIVE_RATE / SAMPLE_RATE) + 1


def structural_frames(num_samples: int) -> int:
    """Number of 12.5 Hz frames of a clip of `num_samples` samples at 24 kHz."""
    return math.floor(num_samples * STRUCTURAL_RATE / SAMPLE_RATE) + 1


def least_samples(structural_frames: int) -> int:
    """Samples at 24 kHz that a clip of so many structural frames (one or more) has at least."""
    return max(1, round((structural_frames - 1) * SAMPLE_RATE / STRUCTURAL_RATE))


@dataclass(frozen=True, eq=False)
class AudioTokens:
    """Descriptive and structural ids of one clip.

    descriptive: (8, T5) int64, T5 = descriptive_frames(num_samples)
    structural: (8, T12) int64, T12 = structural_frames(num_samples); codebooks 0 phone, 1 structure, 2..7 acoustic
    num_samples: length of the clip at 24 kHz
    fingerprint: of the tokenizer that gives the ids their meaning
    """

    descriptive: Tensor
    structural: Tensor
    num_samples: int
    fingerprint: str

    def __post_init__(self) -> None:
        if not 0 < self.num_samples < LONGEST:
            raise ValueError(f"a clip of {self.num_samples} samples; it needs at least one")
        for name, ids, frames in (
            ("descriptive", self.descriptive, descriptive_frames(self.num_samples)),
            ("structural", self.structural, structural_frames(self.num_samples)),
        ):
            if ids.dtype != torch.int64 or tuple(ids.shape) != (NUM_CODEBOOKS, frames):
                raise ValueError(
                    f"{name} ids of a clip of {self.num_samples} samples must be int64 of shape "
                    f"({NUM_CODEBOOKS}, {frames}), not {ids.dtype} of shape {tuple(ids.shape)}"
                )

    @classmethod
    def from_frames(cls, descriptive: Tensor, structural: Tensor, fingerprint: str) -> AudioTokens:
        """Tokens whose length in samples is not known (a language model wrote them).

        The structural frames set the length: the shortest clip that has exactly that many of them, `least_samples`.
        The descriptive frames are cut, or their last one repeated, to fit; the waveform does not depend on them.
        Raises ValueError where either kind has no frame.
        """
        if descriptive.shape[1] == 0 or structural.shape[1] == 0:
            raise ValueError("audio needs at least one descriptive and one structural frame")
        num_samples = least_samples(structural.shape[1])
        missing = descriptive_frames(num_samples) - descriptive.shape[1]
        if missing > 0:
            descriptive = torch.cat([descriptive, descriptive[:, -1:].expand(-1, missing)], dim=1)
        return cls(descriptive[:, : descriptive_frames(num_samples)].contiguous(), structural, num_samples, fingerprint)

    @property
    def seconds(self) -> float:
        return self.num_samples / SAMPLE_RATE

    def require_codes(self, codes: tuple[int, int], source: str) -> None:
        """Raise UserError that names `source` where an id is none of a tokenizer's `codes` (AudioTokenizer.codes)."""
        for name, size in zip(("descriptive", "structural"), codes, strict=True):
            ids = getattr(self, name)
            low, high = map(int, ids.aminmax())
            if low < 0 or high >= size:
                raise UserError(
                    f"{source}: holds the {name} id {low if low < 0 else high}, and the tokenizer has 0 to {size - 1}; "
                    "make the tokens again with the tokenizer that is used here"
                )

    def equal(self, other: AudioTokens) -> bool:
        """Whether both hold the same ids, length and fingerprint."""
        return (
            self.num_samples == other.num_samples
            and self.fingerprint == other.fingerprint
            and torch.equal(self.descriptive, other.descriptive)
            and torch.equal(self.structural, other.structural)
        )

    def save(self, path: str | Path) -> None:
        """Write to a safetensors file."""
        tensors = {"descriptive": self.descriptive, "structural": self.structural}
        save_tensors(tensors, path, num_samples=str(self.num_samples), fingerprint=self.fingerprint)

    @classmethod
    def load(cls, path: str | Path) -> AudioTokens:
        """Read what `save` wrote. Raises UserError where the file is missing, damaged or holds something else."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
                raise UserError(f"{path}: is no ordinary file; give a token file")
            with safe_open(path, framework="pt") as file:
                meta = file.metadata() or {}
                return cls(
                    file.get_tensor("descriptive"),
                    file.get_tensor("structural"),
                    int(meta["num_samples"]),
                    meta["fingerprint"],
                )
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such token file; check the path") from error
        except OSError as error:
            raise of_system(error, path) from error
        except (SafetensorError, KeyError, ValueError) as error:
            raise UserError(
                f"{path}: not an audio-token file ({error}); make one with `uniaudio tokenize AUDIO`"
            ) from error
