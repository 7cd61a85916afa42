"""Quality against bit rate: one small plot a score, as SVG that takes its colours from the report's style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from evaluation.report.text import bit_rate, escaped, shown

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 26, 34  # margins


@dataclass(frozen=True)
class Point:
    """One codec in a plot."""

    # its name
    name: str
    # bits per second, above 0
    rate: float
    # the score
    value: float
    # its standard error
    error: float = 0.0

    @property
    def family(self) -> str:
        """What stands before the @: points of one codec at several bit rates are joined."""
        return self.name.partition("@")[0]


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
    if not points:
        return ""
    place = _Axes(score, points, [v for v in (original, chance) if v is not None])
    parts = [f'<text class="title" x="{_LEFT - 40}" y="14">{escaped(score["name"])}</text>']
    for rate in place.rates:
        x = place.x(rate)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">'
                     f"{rate / 1000:g}</text>")  # fmt: skip
    for value in place.values:
        y, text = place.y(value), escaped(shown(score, value).removesuffix(score["unit"]).strip())
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">kb/s</text>')
    for name, value in (("original", original), ("chance", chance)):
        if value is not None:
            y = place.y(value)
            parts.append(f'<line class="{name}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    parts += _families(points, place) + _points(score, points, place)
    label = f"{score['name']} over bit rate: " + ", ".join(f"{p.name} {shown(score, p.value)}" for p in points)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg class="rates" {size} role="img" aria-label="{escaped(label)}">{"".join(parts)}</svg>'


class _Axes:
    """Where a rate and a value lie in the picture."""

    def __init__(self, score: Mapping, points: Sequence[Point], lines: Sequence[float]) -> None:
        values = [p.value for p in points] + list(lines)
        ends = [end for p in points for end in (p.value - p.error, p.value + p.error)]
        if score["percent"]:  # an error bar may reach beyond what there can be
            ends = [min(max(end, 0.0), 1.0) for end in ends]
        values += ends
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or abs(high) * 0.1 or (0.05 if score["percent"] else 1.0)
        self._low, self._high = low - room, high + room
        rates = [p.rate for p in points]
        self._left, self._right = math.log(min(rates) / 1.5), math.log(max(rates) * 1.7)
        self._upward = score["direction"] == "higher"
        # 1, 2 and 5 of every power of ten that lies within.
        tens = range(math.floor(self._left / math.log(10)), math.ceil(self._right / math.log(10)) + 1)
        marks = [m * 10.0**ten for ten in tens for m in (1, 2, 5)]
        self.rates = [mark for mark in marks if self._left <= math.log(mark) <= self._right]
        ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(self._low, self._high)
        self.values = [float(tick) for tick in ticks if self._low <= tick <= self._high]

    def x(self, rate: float) -> float:
        return _LEFT + (math.log(rate) - self._left) / (self._right - self._left) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        share = min(1.0, max(0.0, share if self._upward else 1 - share))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _families(points: Sequence[Point], place: _Axes) -> list[str]:
    """A line through the points of each codec that has several."""
    lines = []
    for family in dict.fromkeys(p.family for p in points):
        own = sorted((p for p in points if p.family == family), key=lambda p: p.rate)
        if len(own) > 1:
            path = " ".join(f"{place.x(p.rate):.1f},{place.y(p.value):.1f}" for p in own)
            lines.append(f'<polyline class="family" points="{path}"/>')
    return lines


def _points(score: Mapping, points: Sequence[Point], place: _Axes) -> list[str]:
    """Each point with its standard error and its name, which evades the names that are there."""
    parts: list[str] = []
    taken: list[tuple[float, float, float]] = []  # left end, right end, height
    for p in sorted(points, key=lambda p: (p.rate, p.value)):
        x, y = place.x(p.rate), place.y(p.value)
        high, low = sorted((place.y(p.value - p.error), place.y(p.value + p.error)))
        parts.append(f'<line class="error" x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>')
        said = f"{p.name}, {bit_rate(p.rate)}: {shown(score, {'value': p.value, 'stderr': p.error or None})}"
        dot = f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        parts.append(f"<g><title>{escaped(said)}</title>{dot}</g>")
        name = p.name if len(p.name) <= 22 else f"…{p.name[-21:]}"
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
