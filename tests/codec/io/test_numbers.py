"""Ranges of numbers: what lies in them, what is said of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.io import numbers
from codec.io.errors import UserError
from codec.io.numbers import LARGEST, Below, Filled, Range
from codec.io.strict import parse


@dataclass(frozen=True)
class Everything:
    count: numbers.Count = 1
    index: numbers.Index = 0
    layers: numbers.Layers = 1
    width: numbers.Width = 1
    size: numbers.Size = 1
    seed: numbers.Seed = 0
    positive: numbers.Positive = 1.0
    weight: numbers.NonNegative = 0.0
    share: numbers.Share = 0.5
    proper: numbers.ProperShare = 0.5
    seconds: numbers.Seconds = 1.0
    guidance: numbers.Guidance = 1.0
    temperature: numbers.Temperature = 1.0
    name: numbers.Name = "x"
    many: tuple[numbers.Share, ...] = ()
    maybe: numbers.Count | None = None


@pytest.mark.parametrize(
    ("key", "inside", "outside"),
    [
        ("count", [1, 2**63 - 1], [0, -1, 2**63, 2**70, True, 1.0, "1"]),
        ("index", [0, 5], [-1, -(2**70)]),
        ("layers", [1, 1024], [0, 1025]),
        ("width", [1, 2**20], [0, 2**20 + 1]),
        ("size", [1, 2**20], [0, 2**20 + 1]),
        ("seed", [0, LARGEST], [-1, LARGEST + 1]),
        ("positive", [1e-300, 5], [0, 0.0, -0.0, -1, math.nan, math.inf]),
        ("weight", [0, 0.0, 3], [-1e-9, math.nan, math.inf, -math.inf]),
        ("share", [0, 1, 0.5, "1e-1"], [1.0001, -0.1, math.nan, "much"]),
        ("proper", [0, 0.999], [1, 1.0, -0.1]),
        ("seconds", [0.01, 86_400], [0, 86_401, math.inf]),
        ("guidance", [1, 1000], [0.9, 1001]),
        ("temperature", [0, 1000], [-1, 1001]),
        ("name", ["x", " x"], ["", "  ", "\t\n"]),
        ("many", [[], [0, 1]], [[0.5, 2], [math.nan]]),
        ("maybe", [None, 1], [0]),
    ],
)
def test_each_kind(key, inside, outside):
    for value in inside:
        parse(Everything, {key: value}, "f")
    for value in outside:
        with pytest.raises(UserError, match=f"^f: '{key}"):
            parse(Everything, {key: value}, "f")


@pytest.mark.parametrize(
    ("limits", "value", "said"),
    [
        (Range(1), 0, "must be at least 1"),
        (Range(0, open=True), 0, "must be above 0"),
        (Range(0, 1), 2, "must be at least 0 and at most 1"),
        (Below(0, 1), 1, "must be at least 0 and below 1"),
        (Below(0, 1, open=True), 0, "must be above 0 and below 1"),
        (Range(1, 2**20), 0, "must be at least 1 and at most 1048576"),
        (Range(0.08, 2), 0, "must be at least 0.08 and at most 2"),
        (Range(), math.nan, "must be a finite number"),
        (Range(), 2**70, "must fit 64 bits"),
        (Filled(), "", "must not be empty"),
        (Filled(), (), "must not be empty"),
    ],
)
def test_what_is_said(limits, value, said):
    assert limits.problem(value) == said


@given(st.floats() | st.integers(), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_range_takes_what_lies_in_it_and_nothing_else(value, one, other):
    low, high = sorted((one, other))
    inside = math.isfinite(value) and low <= value <= high
    assert (Range(low, high).problem(value) == "") == inside
    assert (Below(low, high).problem(value) == "") == (inside and value < high)
