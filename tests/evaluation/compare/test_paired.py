"""The paired bootstrap against scipy's, and how often its interval holds the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.compare.paired import RESAMPLES, Measured, bootstrap, difference, mean_over_runs
from evaluation.metrics.estimate import ratio


def same(ratios):
    return ratios


def measured(amounts, weights=None):
    amounts = np.atleast_2d(np.asarray(amounts, dtype=float))
    weights = np.ones_like(amounts) if weights is None else np.atleast_2d(np.asarray(weights, dtype=float))
    return Measured(amounts, weights)


# Word errors of two recognisers on the same twelve sentences, and the words of each.
ERRORS_A = [2, 0, 1, 4, 0, 3, 1, 0, 2, 5, 1, 0]
ERRORS_B = [1, 0, 1, 2, 0, 3, 0, 1, 0, 3, 1, 0]
WORDS = [7, 5, 8, 9, 3, 12, 6, 4, 10, 8, 5, 11]


@pytest.mark.parametrize("transform", [same, np.exp])
def test_the_interval_is_that_of_scipys_paired_bootstrap(transform):
    """Each end within 0.15 standard errors: five times the Monte Carlo error of an end of 10,000 resamples."""

    def statistic(a, b, words, axis=-1):
        return transform(b.sum(axis) / words.sum(axis)) - transform(a.sum(axis) / words.sum(axis))

    theirs = stats.bootstrap(
        (np.array(ERRORS_A), np.array(ERRORS_B), np.array(WORDS)), statistic, paired=True, n_resamples=RESAMPLES,
        confidence_level=0.95, method="percentile", vectorized=True, rng=np.random.default_rng(7),
    )  # fmt: skip
    ours = difference(measured(ERRORS_A, WORDS), measured(ERRORS_B, WORDS), transform)
    assert ours.value == pytest.approx(float(statistic(*map(np.array, (ERRORS_A, ERRORS_B, WORDS)))))
    close = 0.15 * theirs.standard_error
    assert abs(ours.low - theirs.confidence_interval.low) < close
    assert abs(ours.high - theirs.confidence_interval.high) < close
    assert ours.stderr == pytest.approx(theirs.standard_error, rel=0.05)


def test_counts_and_the_sign_test_of_a_case_by_hand():
    found = difference(measured(ERRORS_A, WORDS), measured(ERRORS_B, WORDS), same)
    assert (found.higher, found.lower, found.equal) == (1, 5, 6)
    assert found.sign_p == pytest.approx(2 * (1 + 6) / 2**6)  # of six unequal items, one or none the other way
    assert found.value == pytest.approx((12 - 19) / 88) and found.of == "items"


def test_the_same_answers_differ_by_nothing_and_the_same_seed_gives_the_same():
    a = measured(ERRORS_A, WORDS)
    none = difference(a, a, same)
    assert (none.value, none.low, none.high, none.stderr) == (0, None, None, 0.0)
    assert none.sign_p == 1 and not none.is_marked
    b = measured(ERRORS_B, WORDS)
    assert difference(a, b, same) == difference(a, b, same) != difference(a, b, same, seed=1)


@pytest.mark.parametrize(("n", "marked"), [(2, False), (5, False), (6, True)])
def test_without_spread_the_sign_test_marks(n, marked):
    """All items from wrong to right: of five, as even a coin would show one time in sixteen."""
    found = difference(measured([0] * n), measured([1] * n), same)
    assert (found.value, found.low, found.stderr, found.is_marked) == (1, None, 0, marked)


def test_one_item_has_a_difference_and_no_interval():
    found = difference(measured([1]), measured([3]), same)
    assert found.value == 2 and found.low is found.high is found.stderr is None and not found.is_marked


def test_scores_are_those_of_the_metric_also_where_references_hold_no_word():
    for weights in (WORDS, [0] * 12, [0, *WORDS[1:]]):
        (value,) = measured(ERRORS_A, weights).values(same)
        assert value == ratio(ERRORS_A, weights).value
        assert np.isfinite(bootstrap(measured(ERRORS_A, weights), measured(ERRORS_B, weights), same)).all()
    assert len(bootstrap(measured(ERRORS_A, WORDS), measured(ERRORS_B, WORDS), same)) == RESAMPLES


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=30))
def test_the_other_way_round_is_the_negative(rows):
    a, b, words = (list(column) for column in zip(*rows, strict=True))
    one, other = (difference(measured(x, words), measured(y, words), same) for x, y in ((a, b), (b, a)))
    assert one.value == pytest.approx(-other.value, abs=1e-12)
    if one.low is None:
        assert one.stderr == other.stderr == 0
    else:
        assert one.low <= one.high and (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert (one.higher, one.lower, one.sign_p) == (other.lower, other.higher, other.sign_p)
    assert one.is_marked == other.is_marked


@pytest.mark.parametrize("n", [40, 100])
def test_the_interval_holds_the_true_difference_of_word_error_rates_as_often_as_it_says(n, monkeypatch):
    """In 91 to 98 % of 300 draws: 95 % less what percentiles of few items lack, and 2.5 times sqrt(p q / 300)."""
    monkeypatch.setattr("evaluation.compare.paired.RESAMPLES", 1_000)
    rng, held = np.random.default_rng(3), 0
    for draw in range(300):
        words = rng.integers(3, 15, size=n)
        hard = rng.beta(2, 8, size=n)  # how hard a sentence is, for both
        a, b = (rng.binomial(words, np.clip(hard * factor, 0, 1)) for factor in (1.0, 1.3))
        found = difference(measured(a, words), measured(b, words), same, seed=draw)
        held += found.low <= TRUE_RISE <= found.high
    assert 0.91 <= held / 300 <= 0.98


# E[min(1.3 h, 1)] - E[h] with h of Beta(2, 8), by integration.
TRUE_RISE = float(stats.beta(2, 8).expect(lambda h: np.minimum(1.3 * h, 1.0)) - 0.2)


def test_the_interval_of_runs_holds_the_true_difference_and_that_of_items_alone_does_not(monkeypatch):
    """Three runs of each, whose seeds matter as much as the items: at least 93 % of 300 draws hold it.

    A bootstrap of items alone, as if one run were the model, would hold it in fewer than 80 %.
    """
    monkeypatch.setattr("evaluation.compare.paired.RESAMPLES", 500)
    rng, held, alone = np.random.default_rng(4), 0, 0
    for draw in range(300):
        items = rng.normal(0, 1, size=50)
        effect = rng.normal(0, 0.5, size=50) + 0.3  # of B on each item
        seeds = rng.normal(0, 0.15, size=(2, 3, 1))
        a = items + seeds[0] + rng.normal(0, 0.2, size=(3, 50))
        b = items + effect + seeds[1] + rng.normal(0, 0.2, size=(3, 50))
        found = difference(measured(a), measured(b), same, seed=draw)
        held += found.low <= 0.3 <= found.high
        one = difference(measured(a[:1]), measured(b[:1]), same, seed=draw)
        alone += one.low <= 0.3 <= one.high
        assert found.of == "items and runs" and one.of == "items"
    assert held / 300 >= 0.93 and alone / 300 < 0.8


def test_of_runs_that_agree_the_items_alone_are_unsure():
    a, b = (measured([errors] * 3, [WORDS] * 3) for errors in (ERRORS_A, ERRORS_B))
    one = difference(measured(ERRORS_A, WORDS), measured(ERRORS_B, WORDS), same)
    several = difference(a, b, same)
    assert several.value == pytest.approx(one.value) and several.stderr == pytest.approx(one.stderr)
    half = stats.t.ppf(0.975, 11) * one.stderr
    assert (several.low, several.high) == pytest.approx((one.value - half, one.value + half))


def test_mean_over_runs():
    assert mean_over_runs(np.array([0.4])) == (0.4, None)
    mean, error = mean_over_runs(np.array([1.0, 2.0, 6.0]))
    assert mean == 3 and error == pytest.approx(np.sqrt(7) / np.sqrt(3))


def test_many_items_are_resampled_in_parts():
    n = 5_000
    rng = np.random.default_rng(0)
    a, b = measured(rng.random(n)), measured(rng.random(n) + 0.1)
    found = difference(a, b, same)
    assert found.stderr == pytest.approx(np.std(b.items - a.items) / np.sqrt(n), rel=0.05)
