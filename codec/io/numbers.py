"""The ranges of numbers that people give: one table for recipes, configurations and the command line.

A field of a dataclass is annotated with a kind, `steps: Count`, which codec/io/strict.py enforces; options of the
command line take the same kinds (cli/options.py). Every float is finite and every integer fits 64 bits, whatever its
kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sized
from dataclasses import dataclass
from typing import Annotated, Any, get_args

LARGEST = 2**63 - 1  # what 64 bits hold with a sign


@dataclass(frozen=True)
class Range:
    """From one number to another."""

    # the smallest
    low: float = -math.inf
    # the largest
    high: float = math.inf
    # without the smallest itself
    open: bool = False

    def problem(self, value: float) -> str:
        """What is wrong with a number, "must be ..."; "" where nothing is."""
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if isinstance(value, int) and abs(value) > LARGEST:
            return "must fit 64 bits"
        if (value > self.low if self.open else value >= self.low) and value <= self.high:
            return ""
        return f"must be {self}"

    def __str__(self) -> str:
        low = f"{'above' if self.open else 'at least'} {_plain(self.low)}" if math.isfinite(self.low) else ""
        high = f"at most {_plain(self.high)}" if math.isfinite(self.high) else ""
        return " and ".join(part for part in (low, high) if part) or "a number"


def _plain(limit: float) -> str:
    """A limit as people write it: 1048576 rather than 1.04858e+06."""
    return f"{limit:.0f}" if abs(limit) < 1e15 and limit == int(limit) else f"{limit:g}"


@dataclass(frozen=True)
class Below(Range):
    """As Range, but without `high` itself."""

    def problem(self, value: float) -> str:
        return super().problem(value) or (f"must be {self}" if value >= self.high else "")

    def __str__(self) -> str:
        return super().__str__().replace("at most", "below")


@dataclass(frozen=True)
class Filled:
    """Of a text or a list: there is something in it."""

    def problem(self, value: Sized) -> str:
        """As Range.problem."""
        return "" if len(value) and (not isinstance(value, str) or value.strip()) else "must not be empty"


ANY = Range()

Count = Annotated[int, Range(1)]  # of things there is at least one of: steps, layers, heads
Index = Annotated[int, Range(0)]  # of things there may be none of, or a position
Layers = Annotated[int, Range(1, 1024)]  # of a network; more would be built for hours
Width = Annotated[int, Range(1, 2**20)]  # a dimension of weights, or entries of a table
Samples = Annotated[int, Range(1, 2**16)]  # of a window or a step of a few milliseconds
AnyLayers = Annotated[int, Range(0, 1024)]  # as Layers, where there may be none
Size = Annotated[int, Range(1, 2**20)]  # of a batch: rows, clips, ids that are held in memory at once
Seed = Annotated[int, Range(0, LARGEST)]
Positive = Annotated[float, Range(0, open=True)]  # rates, sizes, lengths in seconds
NonNegative = Annotated[float, Range(0)]  # weights, temperatures
Share = Annotated[float, Range(0, 1)]
ProperShare = Annotated[float, Below(0, 1)]  # of what may not be all: dropout, betas
Seconds = Annotated[float, Range(0, 86_400, open=True)]  # of one recording, at most a day
Name = Annotated[str, Filled()]  # a path, an id
Guidance = Annotated[float, Range(1, 1000)]  # strength of guidance; 1 is off
Temperature = Annotated[float, Range(0, 1000)]
Steps = Annotated[int, Range(1, 1000)]  # of a solver, for one clip
Processes = Annotated[int, Range(1, 1024)]  # of one machine
Length = Annotated[float, Range(0.08, 86_400)]  # seconds of sound that is made: a structural frame to a day

# Plain ASCII alone: Python would also take "1_000" and the digits of every script.
_WRITTEN = {
    int: re.compile(r"[+-]?[0-9]{1,19}"),
    float: re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?"),
}


def kind_of(kind: Any) -> tuple[type[int] | type[float], Range]:
    """The type and the range of one of the kinds above."""
    number, limits = get_args(kind)
    return number, limits


def read_number(text: str, kind: Any) -> int | float:
    """A number of one of the kinds above, as a person writes it. Raises ValueError, "must be ...", where it is none."""
    number, limits = kind_of(kind)
    name = "an integer" if number is int else "a number"
    if not _WRITTEN[number].fullmatch(text.strip()):
        whole = re.fullmatch(r"[+-]?[0-9]+", text.strip()) and text.isascii()
        raise ValueError("must fit 64 bits" if whole and number is int else f"must be {name}, {limits}")
    value = number(text.strip())
    if problem := limits.problem(value):
        raise ValueError(problem)
    return value
