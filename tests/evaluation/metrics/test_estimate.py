import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.estimate import Estimate, ratio


def test_mean_and_its_analytic_error():
    found = ratio([1.0, 2.0, 4.0, 5.0], [1, 1, 1, 1])
    assert found.value == 3.0 and found.n == 4
    assert found.stderr == pytest.approx(math.sqrt(10 / 3) / 2)  # s = sqrt(10 / 3), n = 4


def test_share_of_right_answers():
    found = ratio([1] * 30 + [0] * 10, [1] * 40)
    assert found.value == 0.75
    assert found.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 39))


def test_unanimous_items_still_leave_doubt():
    found = ratio([0] * 16, [1] * 16)
    assert found.value == 0.0
    assert found.stderr == pytest.approx(math.sqrt(0.1 * 0.9 / 20))  # (0 + 2) / (16 + 4)


def test_ratio_weighs_items_by_their_length():
    assert ratio([1, 0], [1, 9]).value == pytest.approx(0.1)


def test_bootstrap_error_is_the_deviation_of_the_ratio():
    rng = np.random.default_rng(1)
    words = rng.integers(2, 10, 200)
    errors = rng.binomial(words, 0.3)
    found = ratio(errors, words)
    linear = np.std(errors - found.value * words, ddof=1) / math.sqrt(200) / words.mean()  # delta method
    assert found.stderr == pytest.approx(linear, rel=0.1)


def test_bootstrap_is_seeded():
    assert ratio([1, 0, 2], [3, 1, 4]) == ratio([1, 0, 2], [3, 1, 4])
    assert ratio([1, 0, 2], [3, 1, 4], seed=1).stderr != ratio([1, 0, 2], [3, 1, 4]).stderr


def test_transform_applies_to_the_ratio():
    found = ratio([2.0, 4.0], [1.0, 2.0], np.exp)
    assert found.value == pytest.approx(math.exp(2)) and found.stderr == pytest.approx(0, abs=1e-9)


def test_nothing_and_one_item():
    assert ratio([], []) == Estimate(None, None, 0)
    assert ratio([1.0], [4.0]) == Estimate(0.25, None, 1)
    with pytest.raises(ValueError, match="2 amounts but 1 weights"):
        ratio([1, 2], [1])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30), st.floats(0.1, 10))
def test_scaling_both_sides_changes_nothing(amounts, factor):
    weights = [1.0] * len(amounts)
    plain = ratio(amounts, weights)
    scaled = ratio([a * factor for a in amounts], [w * factor for w in weights])
    assert scaled.value == pytest.approx(plain.value, abs=1e-9)
