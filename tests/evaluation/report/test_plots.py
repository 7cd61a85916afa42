"""Quality against bit rate and against examples, as pictures."""

import re

import pytest

from evaluation.report.plots import Point, rate_plot, shots_plot
from tests.evaluation.report.test_write import Reader

SCORE = {"name": "PESQ <1>", "unit": "", "direction": "higher", "percent": False}
POINTS = [Point("opus@6", 6_000, 2.0, 0.1), Point("opus@12", 12_000, 3.0), Point("codec2@1.2", 1_200, 1.5, 0.2)]


def places(svg):
    return [(float(x), float(y)) for x, y in re.findall(r'class="point" cx="([\d.]+)" cy="([\d.]+)"', svg)]


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_more_bits_lie_to_the_right_and_better_scores_above(direction):
    svg = rate_plot(SCORE | {"direction": direction}, POINTS, 4.6, 1.0)
    Reader(svg)
    slow, middle, fast = places(svg)  # in the order of the bit rate
    assert slow[0] < middle[0] < fast[0]
    heights = [slow[1], middle[1], fast[1]]
    assert heights == sorted(heights, reverse=direction == "higher")
    assert "&lt;1&gt;" in svg and 'class="original"' in svg and 'class="chance"' in svg


def test_points_of_one_codec_are_joined_and_names_do_not_lie_on_each_other():
    same = [Point(f"rival{i}", 1_000, 2.0) for i in range(4)]
    svg = rate_plot(SCORE, [*POINTS, *same], None, None)
    assert svg.count("<polyline") == 1 and 'class="chance"' not in svg
    labels = [(float(x), float(y)) for x, y in re.findall(r'class="label" x="([\d.]+)" y="([\d.-]+)"', svg)]
    assert len({y for x, y in labels if x == labels[0][0]}) >= 4


def test_a_point_alone_and_none_at_all():
    Reader(rate_plot(SCORE, [Point("x" * 100, 1.0, 0.0)], None, None))
    assert rate_plot(SCORE, [], 1.0, 0.0) == ""


def test_more_examples_lie_to_the_right_as_far_apart_as_they_double():
    points = [Point("words", shots, 0.2 + 0.1 * shots, 0.05, f"{shots}!") for shots in (0, 1, 3)]
    svg = shots_plot(SCORE | {"percent": True, "unit": "%"}, points, 0.25)
    Reader(svg)
    (none, low), (one, _), (three, high) = places(svg)
    assert one - none == pytest.approx(three - one, abs=0.2) and none < one and low > high
    assert svg.count("<polyline") == 1 and 'class="chance"' in svg
    assert [label in svg for label in (">0!<", ">1!<", ">3!<", "1 example:", "3 examples:")] == [True] * 5
    marks = re.findall(r'text-anchor="middle">(\d+)</text>', svg)
    assert marks == ["0", "1", "3"]  # what was evaluated, and nothing in between
