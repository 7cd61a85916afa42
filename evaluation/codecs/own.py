"""Tokenizers of this project, X-Codec among them, as codecs under test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer
from evaluation.codecs.base import Reconstruction, TestedCodec, from_24_khz, to_24_khz


def at_bit_rate(tokenizer: AudioTokenizer, kbps: float) -> AudioTokenizer:
    """A tokenizer at the nearest of its bit rates: fewer of its codebooks, or a longer window.

    Raises:
        UserError: It has one bit rate only, or none within a tenth of that.
    """
    by_rate = {round(bits / 1000, 3): one for one in tokenizer.at_each_rate() if (bits := bits_per_second(one))}
    if len(by_rate) < 2:
        raise UserError(f"one bit rate is all that this codec has; leave @{kbps:g} out")
    nearest = min(by_rate, key=lambda rate: abs(rate - kbps))
    if abs(nearest / kbps - 1) > 0.1:
        rates = ", ".join(f"{rate:.3g}" for rate in sorted(by_rate))
        raise UserError(f"this codec has {rates} kb/s; ask for one of them, not @{kbps:g}, or leave it out")
    return by_rate[nearest]


def bits_per_second(tokenizer: AudioTokenizer) -> float | None:
    """What a tokenizer's ids take; None where it does not say how many codes a codebook has."""
    of_each = [stream.bits_per_second for stream in tokenizer.streams]
    return None if None in of_each else sum(of_each)


class OwnCodec(TestedCodec):
    """An audio tokenizer: what it loses is what its tokens do not hold."""

    def __init__(self, name: str, tokenizer: AudioTokenizer) -> None:
        self.name, self.tokenizer, self.fingerprint = name, tokenizer, tokenizer.fingerprint
        self.parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
        self.bits_per_second = bits_per_second(tokenizer)

    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        made = []
        for waveform in waveforms:
            own = torch.from_numpy(from_24_khz(waveform, self.tokenizer.sample_rate))[None]
            with torch.inference_mode():
                (decoded,) = self.tokenizer.decode(self.tokenizer.encode(own.to(self.tokenizer.device)), seed=0)
            waves = decoded.cpu().numpy()
            made.append(Reconstruction(to_24_khz(waves, self.tokenizer.sample_rate, len(waveform))))
        return made
