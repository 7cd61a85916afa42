"""Tokenizers of this project, X-Codec among them, as codecs under test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer
from evaluation.codecs.base import Reconstruction, TestedCodec, from_24_khz, to_24_khz


def at_bit_rate(tokenizer: AudioTokenizer, kbps: float) -> AudioTokenizer:
    """A tokenizer with as many of its codebooks as a bit rate has room for.

    Raises:
        UserError: It has one number of codebooks only, or no number of them has that bit rate.
    """
    if not hasattr(tokenizer, "with_codebooks"):
        raise UserError(f"one bit rate is all that this codec has; leave @{kbps:g} out")
    (stream,) = tokenizer.streams
    each = stream.rate * math.log2(stream.codes) / 1000  # kb/s of one codebook
    count = round(kbps / each)
    if not 1 <= count <= stream.codebooks or abs(count * each / kbps - 1) > 0.1:
        raise UserError(
            f"this codec has 1 to {stream.codebooks} codebooks of {each:.3g} kb/s each; ask for a multiple, not "
            f"@{kbps:g}, or leave it out"
        )
    return tokenizer.with_codebooks(count)


class OwnCodec(TestedCodec):
    """An audio tokenizer: what it loses is what its tokens do not hold."""

    def __init__(self, name: str, tokenizer: AudioTokenizer) -> None:
        self.name, self.tokenizer, self.fingerprint = name, tokenizer, tokenizer.fingerprint
        self.parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
        streams = tokenizer.streams
        if all(stream.codes for stream in streams):
            self.bits_per_second = sum(s.rate * s.codebooks * math.log2(s.codes) for s in streams)

    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        made = []
        for waveform in waveforms:
            own = torch.from_numpy(from_24_khz(waveform, self.tokenizer.sample_rate))[None]
            with torch.inference_mode():
                (decoded,) = self.tokenizer.decode(self.tokenizer.encode(own.to(self.tokenizer.device)), seed=0)
            waves = decoded.cpu().numpy()
            made.append(Reconstruction(to_24_khz(waves, self.tokenizer.sample_rate, len(waveform))))
        return made
