"""A tokenizer of any streams: another shape than ReasoningCodec's behind the same interface."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer, checked_lengths
from codec.tokens import AudioTokens

ONE_STREAM = (StreamSpec("codes", 50.0, 4, 16),)


class StreamsTokenizer(AudioTokenizer):
    """Codes count the loudness of a frame's parts; a frame is decoded to a level for as long as it lasts."""

    tokenizer_type = "streams"

    def __init__(self, specs=ONE_STREAM, sample_rate: int = 16_000, seed: int = 0) -> None:
        super().__init__()
        self._specs, self.sample_rate, self.seed = tuple(specs), sample_rate, seed
        generator = torch.Generator().manual_seed(seed)
        self.tables = nn.ParameterDict(
            {s.name: nn.Parameter(torch.randn(s.codebooks, s.codes, 6, generator=generator)) for s in self._specs}
        )
        self.eval()

    @property
    def streams(self):
        return self._specs

    @torch.no_grad()
    def encode(self, waveforms, lengths=None, progress=None):
        made = []
        for wave, n in zip(waveforms, checked_lengths(waveforms, lengths, self.sample_rate), strict=True):
            streams = {spec.name: self._ids(wave[:n], spec) for spec in self._specs}
            made.append(AudioTokens(streams, n, self.fingerprint))
            if progress is not None:
                progress(n)
        return made

    def _ids(self, wave: Tensor, spec: StreamSpec) -> Tensor:
        parts = torch.tensor_split(wave, self.num_frames(spec.name, len(wave)) * spec.codebooks)
        loudness = torch.stack([part.abs().sum() for part in parts])
        return ((loudness * 1000).long() % spec.codes).view(-1, spec.codebooks).T.contiguous()

    @torch.no_grad()
    def decode(self, tokens, steps=None, seed=0, guidance=None):
        for clip in tokens:
            self.require_own(clip)
        return [self._wave(clip[self._specs[-1].name], 0, clip.num_samples) for clip in tokens]

    def _wave(self, ids: Tensor, first: int, end: int) -> Tensor:
        """Of frames from the first one on, to the sample `end` of the clip."""
        spec = self._specs[-1]
        levels = self.dequantise(spec.name, ids.T[None])[0].mean(-1)  # (T,)
        starts = [self._start(first + i) for i in range(ids.shape[1])] + [end]
        pieces = [
            level.expand(stop - start) for level, start, stop in zip(levels, starts[:-1], starts[1:], strict=True)
        ]
        return torch.cat([torch.zeros(0), *pieces])

    def _start(self, frame: int) -> int:
        return round(frame * self.sample_rate / self._specs[-1].rate)

    @torch.no_grad()
    def dequantise(self, stream, ids):
        table = self.tables[stream]
        return sum(table[book][ids[..., book]] for book in range(len(table)))

    def stream(self, steps=None, seed=0, guidance=None, first_window=None):
        return _Stream(self)

    def config_values(self):
        return {"specs": [asdict(spec) for spec in self._specs], "sample_rate": self.sample_rate, "seed": self.seed}

    @classmethod
    def from_config_values(cls, values, source):
        return cls([StreamSpec(**spec) for spec in values["specs"]], values["sample_rate"], values["seed"])


class _Stream:
    """A frame is final once another one has followed."""

    def __init__(self, codec: StreamsTokenizer) -> None:
        self._codec, self._held, self._count = codec, None, 0

    def feed(self, ids: Tensor) -> Tensor:
        held = ids if self._held is None else torch.cat([self._held, ids], dim=1)
        done = max(0, held.shape[1] - 1)
        piece = self._codec._wave(held[:, :done], self._count, self._codec._start(self._count + done))
        self._held, self._count = held[:, done:], self._count + done
        return piece

    def finish(self, num_samples: int | None = None) -> Tensor:
        name = self._codec.streams[-1].name
        if num_samples is None:
            num_samples = self._codec.least_samples(name, self._count + self._held.shape[1])
        return self._codec._wave(self._held, self._count, num_samples)
