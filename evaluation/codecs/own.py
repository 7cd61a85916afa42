"""Tokenizers of this project, X-Codec among them, as codecs under test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from codec.tokenizer import AudioTokenizer
from evaluation.codecs.base import Reconstruction, TestedCodec, from_24_khz, to_24_khz


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
