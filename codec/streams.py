"""Streams: the sequences of frames that a tokenizer makes of sound, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from codec.io.numbers import Name, Positive, Width

ALL_STREAMS = "audio"  # what a sentence calls every stream of a clip together; no stream is called so


@dataclass(frozen=True)
class StreamSpec:
    """One stream of a tokenizer: a sequence of frames with one id from each codebook."""

    name: Name  # of a column of a token store and of a role in a sentence, such as "descriptive"
    rate: Positive  # frames per second
    codebooks: Width  # ids of a frame
    codes: Width | None  # entries of each codebook, so that ids lie in [0, codes); None where nobody wrote it down

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        """Frames of a clip: one for every started 1 / rate seconds, and one where the last is just filled."""
        return math.floor(num_samples * self.rate / sample_rate) + 1

    def least_samples(self, frames: int, sample_rate: int) -> int:
        """Samples of the shortest clip that has exactly so many frames (one or more)."""
        return max(1, round((frames - 1) * sample_rate / self.rate))

    def describe(self) -> str:
        """For people: "descriptive, 5 Hz x 8 codebooks of 512 codes"."""
        size = "" if self.codes is None else f" of {self.codes:,} codes"
        return f"{self.name}, {self.rate:g} Hz x {self.codebooks} codebooks{size}"


def common_unit(rates: tuple[float, ...]) -> Fraction:
    """The shortest time in seconds that is a whole number of frames at each rate: 0.4 s for 5 and 12.5 Hz."""
    periods = [1 / Fraction(rate).limit_denominator(1000) for rate in rates]
    return Fraction(math.lcm(*(p.numerator for p in periods)), math.gcd(*(p.denominator for p in periods)))
