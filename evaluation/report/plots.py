"""A score over bit rates, or over numbers of examples: small plots, as SVG that takes its colours from the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from evaluation.report.text import bit_rate, escaped, shown

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 26, 34  # margins


@dataclass(frozen=True)
class Point:
    """One codec, or one number of examples, in a plot."""

    # of the codec, or of the score
    name: str
    # bits per second, above 0, or the number of examples
    at: float
    # the score
    value: float
    # its standard error
    error: float = 0.0
    # what is written at the point; empty: its name
    label: str = ""

    @property
    def family(self) -> str:
        """What stands before the @: points of one codec at several bit rates are joined."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Horizontal:
    """What lies from left to right."""

    # at the right end
    label: str
    # of the picture, for those who do not see it
    about: str
    # value -> place, in any unit
    place: Callable[[float], float]
    # places that are left free at the left and at the right
    room: tuple[float, float]
    # points -> values that are marked
    marks: Callable[[Sequence[float]], Sequence[float]]
    # value -> how a mark is written
    mark: Callable[[float], str]
    # value -> how it is said of a point
    text: Callable[[float], str]


def _round_rates(rates: Sequence[float]) -> list[float]:
    """1, 2 and 5 of every power of ten around the rates."""
    tens = range(math.floor(math.log10(min(rates))) - 1, math.ceil(math.log10(max(rates))) + 2)
    return [m * 10.0**ten for ten in tens for m in (1, 2, 5)]


RATE = Horizontal(
    "kb/s", "over bit rate", math.log, (math.log(1.5), math.log(1.7)), _round_rates, lambda x: f"{x / 1000:g}", bit_rate
)
SHOTS = Horizontal(
    "examples", "over examples", lambda x: math.log2(1 + x), (0.2, 0.2), lambda shots: sorted(set(shots)),
    lambda x: f"{x:g}", lambda x: f"{x:g} example{'s' * (x != 1)}",
)  # fmt: skip


def rate_plot(score: Mapping, points: Sequence[Point], original: float | None, chance: float | None) -> str:
    """Value of a score over the bit rate, on a logarithmic axis; the better end is at the top.

    Args:
        score: Entry of the score in results.json: name, unit, direction.
        points: The codecs.
        original: The score of the originals, a line; None for none.
        chance: That of a guess, a dashed line; None for none.

    Returns:
        "" without a point.
    """
    return _plot(score, points, RATE, original, chance)


def shots_plot(score: Mapping, points: Sequence[Point], chance: float | None) -> str:
    """Value of a score over the number of examples; the other arguments are those of `rate_plot`."""
    return _plot(score, points, SHOTS, None, chance)


def _plot(
    score: Mapping, points: Sequence[Point], across: Horizontal, original: float | None, chance: float | None
) -> str:
    if not points:
        return ""
    place = _Axes(score, points, across, [v for v in (original, chance) if v is not None])
    parts = [f'<text class="title" x="{_LEFT - 40}" y="14">{escaped(score["name"])}</text>']
    for mark in place.marks:
        x = place.x(mark)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">'
                     f"{across.mark(mark)}</text>")  # fmt: skip
    for value in place.values:
        y, text = place.y(value), escaped(shown(score, value).removesuffix(score["unit"]).strip())
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">{across.label}</text>')
    for name, value in (("original", original), ("chance", chance)):
        if value is not None:
            y = place.y(value)
            parts.append(f'<line class="{name}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts += _families(points, place) + _points(score, points, across, place)
    said = ", ".join(f"{p.name}, {across.text(p.at)}: {shown(score, p.value)}" for p in points)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    label = escaped(f"{score['name']} {across.about}: {said}")
    return f'<svg class="rates" {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


class _Axes:
    """Where a point and a value lie in the picture."""

    def __init__(self, score: Mapping, points: Sequence[Point], across: Horizontal, lines: Sequence[float]) -> None:
        values = [p.value for p in points] + list(lines)
        ends = [end for p in points for end in (p.value - p.error, p.value + p.error)]
        if score["percent"]:  # an error bar may reach beyond what there can be
            ends = [min(max(end, 0.0), 1.0) for end in ends]
        values += ends
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or abs(high) * 0.1 or (0.05 if score["percent"] else 1.0)
        self._low, self._high = low - room, high + room
        at = [p.at for p in points]
        self._place = across.place
        self._left, self._right = across.place(min(at)) - across.room[0], across.place(max(at)) + across.room[1]
        self._upward = score["direction"] == "higher"
        self.marks = [m for m in across.marks(at) if self._left <= across.place(m) <= self._right]
        ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(self._low, self._high)
        self.values = [float(tick) for tick in ticks if self._low <= tick <= self._high]

    def x(self, at: float) -> float:
        return _LEFT + (self._place(at) - self._left) / (self._right - self._left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        share = min(1.0, max(0.0, share if self._upward else 1 - share))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _families(points: Sequence[Point], place: _Axes) -> list[str]:
    """A line through the points of each codec that has several."""
    lines = []
    for family in dict.fromkeys(p.family for p in points):
        own = sorted((p for p in points if p.family == family), key=lambda p: p.at)
        if len(own) > 1:
            path = " ".join(f"{place.x(p.at):.1f},{place.y(p.value):.1f}" for p in own)
            lines.append(f'<polyline class="family" points="{path}"/>')
    return lines


def _points(score: Mapping, points: Sequence[Point], across: Horizontal, place: _Axes) -> list[str]:
    """Each point with its standard error and its name, which evades the names that are there."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []  # left end, right end, height
    for p in sorted(points, key=lambda p: (p.at, p.value)):
        x, y = place.x(p.at), place.y(p.value)
        high, low = sorted((place.y(p.value - p.error), place.y(p.value + p.error)))
        parts.append(f'<line class="error" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>')
        said = f"{p.name}, {across.text(p.at)}: {shown(score, {'value': p.value, 'stderr': p.error or None})}"
        dot = f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        parts.append(f"<g><title>{escaped(said)}</title>{dot}</g>")
        name = p.label or p.name
        name = name if len(name) <= 22 else f"…{name[-21:]}"
        half = 2.7 * len(name)
        middle = min(max(x, _LEFT + half), _WIDTH - _RIGHT - half)
        offsets = sorted((-9, 16, -20, 27, -31, 38, -42, 49), key=abs)
        heights = [y + offset for offset in offsets if _TOP - 2 <= y + offset <= _HEIGHT - _BOTTOM - 2] or [y - 9]
        free = (
            h
            for h in heights
            if not any(a < middle + half and b > middle - half and abs(h - t) < 10 for a, b, t in taken)
        )
        height = next(free, heights[0])
        taken.append((middle - half, middle + half, height))
        parts.append(
            f'<text class="label" x="{middle:.1f}" y="{height:.1f}" text-anchor="middle">{escaped(name)}</text>'
        )
    return parts
