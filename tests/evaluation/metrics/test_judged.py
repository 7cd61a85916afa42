"""Metrics of what judges made: pitch, embeddings, tags, ratings, and the Fréchet distance."""

import numpy as np
import pytest

from evaluation.metrics.distribution import FrechetDistance, frechet, frechet_estimate
from evaluation.metrics.registry import METRICS

RISING = [0.0] * 10 + np.geomspace(100, 200, 50).tolist() + [0.0] * 10


def test_pitch_is_correlated_where_both_are_voiced():
    score = METRICS["f0_correlation"].score
    assert score([RISING], [RISING]).value == pytest.approx(1)
    octave = [2 * hz for hz in RISING]
    assert score([octave], [RISING]).value == pytest.approx(1), "an octave apart is the same melody"
    assert score([RISING[::-1]], [RISING]).value == pytest.approx(-1)
    assert score([[0.0] * 70], [RISING]).n == score([[150.0] * 70], [RISING]).n == score([[]], [RISING]).n == 0
    assert score([None], [RISING]).n == 0


def test_voicing_errors_are_shares_of_frames():
    score = METRICS["voicing_error"].score
    assert score([RISING], [RISING]).value == 0
    assert score([[150.0] * 70], [RISING]).value == pytest.approx(20 / 70)
    assert score([[0.0] * 70], [RISING]).value == pytest.approx(50 / 70)
    assert score([RISING], [[0.0] * 70]).n == 0
    long = RISING * 3
    assert score([[150.0] * 70, long], [RISING, long]).value == pytest.approx(20 / 280), "long clips weigh more"


def test_cosine_tags_and_ratings():
    assert METRICS["cosine"].score([[1.0, 1.0]], [[1.0, 0.0]]).value == pytest.approx(np.sqrt(0.5))
    assert METRICS["cosine"].score([[], None, [0.0, 0.0]], [[1.0, 0.0]] * 3).n == 0
    same = METRICS["class_agreement"].score([[0.1, 0.9], [0.8, 0.2]], [[0.4, 0.6], [0.3, 0.7]])
    assert same.value == 0.5 and same.n == 2
    assert METRICS["rating"].score([[3.0], [4.0], []], [None, None, None]).value == 3.5


def test_the_frechet_distance_of_two_gaussians():
    """Means 3 apart, deviations 1 and 2 in each of 4 dimensions: |m|^2 = 36 and (2 - 1)^2 x 4."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20_000, 4)), 3 + 2 * rng.standard_normal((20_000, 4))
    assert frechet(a, b) == pytest.approx(36 + 4, rel=0.03) and frechet(b, a) == pytest.approx(frechet(a, b))
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_fewer_clips_than_dimensions_give_what_the_square_root_gives():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((6, 9)), rng.standard_normal((7, 9)) + 0.5
    c, d = np.cov(a.T), np.cov(b.T)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = gap + np.trace(c + d) - 2 * np.trace(sqrtm(c @ d)).real
    assert frechet(a, b) == pytest.approx(expected, abs=1e-4)


def test_the_frechet_distance_as_a_score():
    rng = np.random.default_rng(2)
    originals = rng.standard_normal((40, 5)).tolist()
    near = (np.array(originals) + 0.1 * rng.standard_normal((40, 5))).tolist()
    far = (np.array(originals) + 2).tolist()
    metric = METRICS["frechet_distance"]
    assert isinstance(metric, FrechetDistance) and metric.guess == "noise"
    found = [metric.score(some, originals) for some in (originals, near, far)]
    assert found[0].value == pytest.approx(0, abs=1e-9) and found[0].value < found[1].value < found[2].value
    assert found[2].value == pytest.approx(4, rel=0.3), "2 deviations in each dimension"
    assert 0 < found[1].stderr < found[1].value and found[1].n == 40
    assert metric.score([[], *near[1:]], originals).n == 39
    assert metric.score(near[:3], originals[:3]).value is None
    halves = metric.ceiling(originals)
    assert halves.n == 20 and 0 < halves.value < found[2].value


def test_dimensions_without_any_deviation_say_nothing():
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 30, 3))
    b[:, 2] = 1.0
    plain = frechet_estimate(a[:, :2], b[:, :2]).value
    assert frechet_estimate(a, b).value == pytest.approx(plain * 2 / 3)


GIVEN = [2.0, 120.0, -25.0]  # seconds, Hz, dB


@pytest.mark.parametrize(
    ("edit", "right"),
    [
        ("faster", [1.5, 120.0, -25.0]), ("slower", [2.6, 120.0, -25.0]), ("higher", [2.0, 150.0, -25.0]),
        ("lower", [2.0, 95.0, -25.0]), ("louder", [2.0, 120.0, -20.0]), ("quieter", [2.0, 120.0, -32.0]),
    ],
)  # fmt: skip
def test_an_edit_counts_where_it_moves_what_was_asked_for_as_it_was_asked(edit, right):
    metric = METRICS["edit_direction"]
    assert metric.measure(right, (edit, GIVEN)) == (1.0, 1.0)
    wrong = [2 * g - r for g, r in zip(GIVEN, right, strict=True)]  # as far the other way
    barely = [g + 0.02 * (r - g) for g, r in zip(GIVEN, right, strict=True)]
    for answer in (wrong, barely, GIVEN, [], None):
        assert metric.measure(answer, (edit, GIVEN)) == (0.0, 1.0)
    assert metric.measure(right, ("word", GIVEN)) is None and metric.measure(right, (edit, [])) is None
    assert metric.chance([(edit, GIVEN)] * 3, []) == 0.5


def test_the_divergence_of_classes():
    measure = METRICS["class_divergence"].measure
    even, sure, other = [0.25] * 4, [0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]
    assert measure(sure, sure) == pytest.approx((0.0, 1.0))
    assert measure(even, sure)[0] == pytest.approx(0.97 * np.log(3.88) + 0.03 * np.log(0.04), rel=1e-4)
    assert measure(other, sure)[0] == pytest.approx(0.96 * np.log(97), rel=1e-4)
    assert measure([2 * x for x in even], sure) == pytest.approx(measure(even, sure)), "shares, whatever their sum"
    assert measure([], sure) is None and measure(None, sure) is None
    assert np.isfinite(measure([0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0])[0])
