"""Streams: the sequences of frames that a tokenizer makes of sound, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from codec.io.errors import UserError
from codec.io.numbers import Name, Positive, Width
from codec.io.strict import nearest

ALL_STREAMS = "audio"  # what a sentence calls every stream of a clip together; no stream is called so
# tokenizer_type -> names of its streams, in the order of generation, whatever its size. Recipes and tasks are written
# for any tokenizer: a stream that one of these has and another lacks is left out there, and any other name is misspelt.
STREAM_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"reasoning_codec": ("descriptive", "structural"), "xcodec": ("codes",), "almtokenizer": ("queries",)}
)


@dataclass(frozen=True)
class StreamSpec:
    """One stream of a tokenizer: a sequence of frames with one id from each codebook."""

    name: Name  # of a column of a token store and of a role in a sentence, such as "descriptive"
    rate: Positive  # frames per second
    codebooks: Width  # ids of a frame
    codes: Width | None  # entries of each codebook, so that ids lie in [0, codes); None where nobody wrote it down
    extra_frame: bool = True  # a clip that just fills its last frame has one more, as ReasoningCodec's have

    @property
    def bits_per_second(self) -> float | None:
        """What the ids of a second take at most; None where nobody wrote down how many codes there are."""
        return self.codes and self.rate * self.codebooks * math.log2(self.codes)

    def num_frames(self, num_samples: int, sample_rate: int) -> int:
        """Frames of a clip: one for every started 1 / rate seconds, and the extra one where the last is just filled."""
        if not self.extra_frame:
            return math.ceil(num_samples / self._samples_of_a_frame(sample_rate))
        return math.floor(num_samples * self.rate / sample_rate) + 1

    def least_samples(self, frames: int, sample_rate: int) -> int:
        """Samples of the shortest clip that has exactly so many frames (one or more)."""
        if not self.extra_frame:
            return math.floor((frames - 1) * self._samples_of_a_frame(sample_rate)) + 1
        return max(1, round((frames - 1) * sample_rate / self.rate))

    def _samples_of_a_frame(self, sample_rate: int) -> Fraction:
        """Exactly: at a border of two frames, a rounded rate would make one too many."""
        return sample_rate / Fraction(self.rate).limit_denominator(2**16)

    def describe(self) -> str:
        """For people: "descriptive, 5 Hz x 8 codebooks of 512 codes"."""
        size = "" if self.codes is None else f" of {self.codes:,} codes"
        return f"{self.name}, {self.rate:g} Hz x {self.codebooks} codebooks{size}"


def plain_values(stream: Any) -> dict[str, Any]:
    """A dataclass of one stream as plain values. What it says of the extra frame is left out where that is the rule.

    So what was stored before there was another rule keeps its bytes and its hash.
    """
    values = asdict(stream)
    if values["extra_frame"]:
        del values["extra_frame"]
    return values


def common_unit(rates: tuple[float, ...]) -> Fraction:
    """The shortest time in seconds that is a whole number of frames at each rate: 0.4 s for 5 and 12.5 Hz."""
    periods = [1 / Fraction(rate).limit_denominator(1000) for rate in rates]
    return Fraction(math.lcm(*(p.numerator for p in periods)), math.gcd(*(p.denominator for p in periods)))


def is_absent(name: str, streams: Iterable[str], where: str) -> bool:
    """Whether a tokenizer has no stream of that name, which another kind of tokenizer has.

    Args:
        name: Of the stream, as a person wrote it.
        streams: Names of the tokenizer's.
        where: What names the stream, for the message.

    Raises:
        UserError: No kind of tokenizer has such a stream.
    """
    own = tuple(streams)
    if name in own:
        return False
    known = {other for names in STREAM_NAMES.values() for other in names}
    if name not in known:
        raise UserError(
            f"{where} is about a stream {name!r}, and the tokens have {', '.join(own)}{nearest(name, {*own, *known})}"
        )
    return True
