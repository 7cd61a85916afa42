"""Figures of the report that are numbers: where their marks stand."""

import re

import pytest

from evaluation.report.figures import difference_svg


def marks(svg):
    """Ends of the interval and place of the dot."""
    low, high = re.search(r'class="error" x1="([\d.]+)" x2="([\d.]+)"', svg).groups()
    return float(low), float(high), float(re.search(r'class="model" cx="([\d.]+)"', svg)[1])


@pytest.mark.parametrize(
    ("value", "ends", "limit", "places"),
    [
        (0.0, (-1.0, 1.0), 1.0, (6, 234, 120)),
        (0.5, (0.25, 1.0), 1.0, (148.5, 234, 177)),
        (-0.5, (-0.25, -1.0), 1.0, (6, 91.5, 63)),  # ends in either order
        (5.0, (4.0, 9.0), 1.0, (234, 234, 234)),  # never outside
        (0.0, (0.0, 0.0), 0.0, (120, 120, 120)),  # nothing differs
    ],
)
def test_zero_is_in_the_middle_and_better_on_the_right(value, ends, limit, places):
    assert marks(difference_svg(value, ends, limit)) == pytest.approx(places)
