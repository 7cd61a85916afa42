"""Crops of audio for the codec's trainers: a pure function of the recipe's seed and the batch's number."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Self

import torch
from torch import Tensor

from auditory_sentences.corpora.read import Clip, read_each
from auditory_sentences.rng import KeyedRng, stable_hash
from codec.audio.waveform import at_rate, audio_length, load_audio
from codec.io.errors import UserError
from codec.io.numbers import Range
from codec.tokens import SAMPLE_RATE

Decibels = Annotated[float, Range(-120, 3)]  # up to the gain of the loudest crop

NARROW = (8_000, 11_025)  # Hz: rates of telephones and of old recordings
_POOL = 8  # batches that are drawn together and sorted by length, so that little of a batch is padding


@dataclass(frozen=True)
class Crop:
    """A stretch of a clip."""

    # what it is cut from
    clip: Clip
    # first sample, at 24 kHz
    start: int
    # samples
    length: int
    # heard as in a recording of so many samples a second, which has nothing above half of it
    rate: int = SAMPLE_RATE

    def load(self) -> Tensor:
        """The waveform, (length,) float32 at 24 kHz."""
        waveform = load_audio(self.clip.path)[self.start : self.start + self.length]
        return at_rate(at_rate(waveform, SAMPLE_RATE, self.rate), self.rate, SAMPLE_RATE)[: self.length]


class AudioCrops:
    """Batches of clips of similar length, cut to at most `crop_seconds` at a random place.

    Args:
        clips: to draw from, each with the same probability.
        batch: clips in a batch.
        crop_seconds: length of the longest crop.
        key: what the random numbers depend on, such as seed and split.
        tiled: long clips are cut at multiples of `crop_seconds`, and at their end, rather than anywhere: the same few
            crops come again and again, for trainers that keep what they computed of one.
        weights: of the clips, in any unit. None: each has the same probability.
        narrow_band: share of the crops that are heard as in a recording of one of the rates in NARROW.

    Raises:
        UserError: there is no clip.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        batch: int,
        crop_seconds: float,
        *key: int | str,
        tiled: bool = False,
        weights: Sequence[float] | None = None,
        narrow_band: float = 0.0,
    ) -> None:
        if not clips:
            raise UserError("no clip to train on: look at the corpora and their splits")
        self.clips, self.size, self.key, self.tiled = list(clips), batch, key, tiled
        self.most, self.narrow_band = round(crop_seconds * SAMPLE_RATE), narrow_band
        self.lengths = tuple(audio_length(clip.path) for clip in self.clips)
        self.ends = tuple(accumulate(weights or ()))

    @classmethod
    def train_and_dev(
        cls,
        corpora: Sequence[str],
        batch: int,
        crop_seconds: float,
        seed: int,
        tiled: bool = False,
        kinds: Mapping[str, float] | None = None,
        shares: Sequence[float] = (),
        narrow_band: float = 0.0,
        fits: Callable[[Clip], bool] = lambda clip: True,
    ) -> tuple[Self, Self]:
        """Crops of the corpora's train clips, and of their dev clips.

        Arguments as for the class and `clip_weights`; `fits` says which clips may be drawn at all.
        """
        placed = [(clip, place) for place, clips in enumerate(read_each(corpora)) for clip in clips if fits(clip)]

        def of(split: str) -> Self:
            chosen = [(clip, place) for clip, place in placed if clip.split == split]
            clips, places = [clip for clip, _ in chosen], [place for _, place in chosen]
            weights = clip_weights(clips, places, kinds or {}, shares) if clips and (kinds or shares) else None
            return cls(clips, batch, crop_seconds, seed, split, tiled=tiled, weights=weights, narrow_band=narrow_band)

        return of("train"), of("dev")

    @property
    def fingerprint(self) -> str:
        """Hash of which clips there are and how long they are."""
        return f"{stable_hash(*(f'{c.id} {n}' for c, n in zip(self.clips, self.lengths, strict=True))):016x}"

    def batch(self, index: int) -> list[Crop]:
        """The crops of batch `index`."""
        pool, position = divmod(index, _POOL)
        rng = KeyedRng("crop", *self.key, index)
        crops = []
        for clip in _pool(self.lengths, self.ends, self.most, self.size, (*self.key, pool))[position]:
            length = min(self.lengths[clip], self.most)
            last = self.lengths[clip] - length
            start = min(rng.randint(0, -(-last // self.most)) * self.most, last) if self.tiled else rng.randint(0, last)
            narrow = self.narrow_band > 0 and rng.randrange(1 << 53) / (1 << 53) < self.narrow_band
            crops.append(Crop(self.clips[clip], start, length, rng.choice(NARROW) if narrow else SAMPLE_RATE))
        return crops


def load_batch(crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
    """Waveforms (B, n) float32, zero beyond their lengths (B,) in samples."""
    waveforms = torch.nn.utils.rnn.pad_sequence([crop.load() for crop in crops], batch_first=True)
    return waveforms, torch.tensor([crop.length for crop in crops])


def random_gains(count: int, quietest_db: float) -> Tensor:
    """(count, 1) factors between `quietest_db` and +3 dB, from the seeded generator."""
    return 10 ** ((quietest_db + (3.0 - quietest_db) * torch.rand(count, 1)) / 20)


def check_corpus_shares(corpora: Sequence[str], shares: Sequence[float]) -> None:
    """Raise UserError where there are shares, but not one for each corpus, or none above 0."""
    if shares and (len(shares) != len(corpora) or not any(shares)):
        raise UserError(f"corpus_shares: give each of the {len(corpora)} corpora a number, one of them above 0")


def clip_weights(
    clips: Sequence[Clip], corpora: Sequence[int], kinds: Mapping[str, float], shares: Sequence[float]
) -> list[float]:
    """Probability of each clip, in any unit: that of its kind, of its corpus among those that have the kind, its own.

    Args:
        clips: to draw from.
        corpora: place of the corpus in `shares`, for each clip.
        kinds: kind of clip -> its share; kinds that are not named are left out. Empty: the kind does not matter.
        shares: of the corpora. Empty: the corpus does not matter.

    Raises:
        UserError: all weights are 0.
    """
    cells = [(clip.kind if kinds else "", corpus if shares else 0) for clip, corpus in zip(clips, corpora, strict=True)]
    counts = Counter(cells)
    of_corpus = {cell: shares[cell[1]] if shares else 1.0 for cell in counts}
    of_kind: dict[str, float] = defaultdict(float)  # shares of all corpora that have it
    for (kind, _), share in of_corpus.items():
        of_kind[kind] += share
    weights = {
        cell: kinds.get(cell[0], 0.0 if kinds else 1.0) * share / (of_kind[cell[0]] or 1.0) / counts[cell]
        for cell, share in of_corpus.items()
    }
    if not any(weights.values()):
        among = f" of the kinds {', '.join(kinds)}" if kinds else ""
        there = ", ".join(sorted({clip.kind for clip in clips}))
        raise UserError(f"no clip to train on{among} in a corpus with a share: there are {there}")
    return [weights[cell] for cell in cells]


@lru_cache(maxsize=4)
def _pool(lengths: tuple[int, ...], ends: tuple[float, ...], most: int, size: int, key: tuple) -> list[list[int]]:
    """Indices of the clips of `_POOL` batches: drawn together, sorted by length, cut into batches in random order.

    ends: where the part of [0, last end) that stands for each clip ends; empty: all parts are alike.
    """
    rng = KeyedRng("pool", *key)

    def drawn() -> int:
        if not ends:
            return rng.randrange(len(lengths))
        return bisect_right(ends, ends[-1] * rng.randrange(1 << 53) / (1 << 53))

    clips = [drawn() for _ in range(_POOL * size)]
    clips.sort(key=lambda clip: min(lengths[clip], most))
    return rng.shuffled([clips[i * size : (i + 1) * size] for i in range(_POOL)])
