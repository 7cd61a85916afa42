"""A tokenizer of three lines' arithmetic, with the whole interface, for tests of what surrounds one."""

from __future__ import annotations

import time

import torch

from codec.tokenizer import AudioTokenizer
from codec.tokens import AudioTokens
from tests.factories.tokens import two_streams


class FakeTokenizer(AudioTokenizer):
    """Ids counted from frame energies. `shift` makes another tokenizer of it, `pause` (seconds a batch) a slow one."""

    tokenizer_type = "fake"

    def __init__(self, shift: int = 0, pause: float = 0.0) -> None:
        super().__init__()
        self.shift, self.pause = shift, pause
        self.batches: list[int] = []  # clips in each batch encoded so far
        self.eval()

    def encode(self, waveforms, lengths=None, progress=None):
        time.sleep(self.pause)
        lengths = [waveforms.shape[1]] * len(waveforms) if lengths is None else lengths.tolist()
        self.batches.append(len(lengths))
        return [
            AudioTokens(
                {
                    spec.name: self._ids(wave[:n], spec, self.num_frames(spec.name, n), step)
                    for step, spec in enumerate(self.streams, 1)
                },
                n,
                self.fingerprint,
            )
            for wave, n in zip(waveforms, lengths, strict=True)
        ]

    def _ids(self, wave, spec, frames, step):
        energy = torch.stack([part.abs().sum() for part in torch.tensor_split(wave, frames)])  # (frames,)
        return ((energy * 1000).long()[None] * step + torch.arange(spec.codebooks)[:, None] + self.shift) % spec.codes

    def decode(self, tokens, steps=10, seed=0, guidance=1.5):
        return [torch.zeros(t.num_samples) for t in tokens]

    @property
    def streams(self):
        return two_streams(256, 256)

    def dequantise(self, stream, ids):
        return ids.float()

    def config_values(self):
        return {"shift": self.shift}

    @classmethod
    def from_config_values(cls, values, source):
        return cls(**values)
