"""Statistics of two groups of runs that answered the same items: the difference, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000  # an end of the interval is then within about 3 % of a standard error of its limit
CONFIDENCE = 0.95
SEED = 0
_AT_ONCE = 2_000_000  # counts of items that are held at a time

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Measured:
    """What one group of runs measured on the items that all runs share."""

    # (runs, items): for example word errors
    amounts: np.ndarray
    # (runs, items): for example words
    weights: np.ndarray

    @property
    def runs(self) -> int:
        return len(self.amounts)

    @property
    def items(self) -> np.ndarray:
        """(items,): the value of each item alone, the mean of the runs. Weights of 0 count as 1."""
        return (self.amounts / np.where(self.weights == 0, 1.0, self.weights)).mean(axis=0)

    def values(self, transform: Transform) -> np.ndarray:
        """(runs,): the score of each run, as `evaluation.metrics.estimate.ratio` has it."""
        totals = self.weights.sum(axis=1)
        return transform(self.amounts.sum(axis=1) / np.where(totals == 0, 1.0, totals))


@dataclass(frozen=True)
class Difference:
    """B - A of one score."""

    # means of the runs' scores, second minus first
    value: float
    # ends of the 95 % interval; None with fewer than two items, and where all items changed by the same
    low: float | None
    high: float | None  # as low
    # standard error of the difference; 0 where all items changed by the same, None with fewer than two
    stderr: float | None
    # what the interval holds for: other items of the kind ("items"), or other items and other runs ("items and runs")
    of: str
    # number of items that B has a higher value on, a lower one, the same
    higher: int
    lower: int  # as higher
    equal: int  # as higher
    # p of the two-sided sign test: as uneven a count of higher and lower if both were as likely; 1 where all are equal
    sign_p: float

    @property
    def is_marked(self) -> bool:
        """Whether the interval leaves out 0; without any spread among items, whether the sign test says as much."""
        if self.stderr == 0:
            return self.sign_p < 1 - CONFIDENCE
        rounding = 1e-12 * max(1.0, abs(self.value))
        return self.low is not None and self.high is not None and (self.low > rounding or self.high < -rounding)


def difference(a: Measured, b: Measured, transform: Transform, seed: int = SEED) -> Difference:
    """How much higher B's score is than A's.

    One run against one: the percentile interval of a paired bootstrap (Efron and Tibshirani 1993, chapter 13; of word
    error rates, Bisani and Ney 2004). Items are resampled, A and B together, and the ratio is formed anew as the metric
    forms it. It holds for other items of the kind; what another training of the same model would give is not in it.

    Where a group has several runs, its score is their mean, and the variance of that mean over runs, s^2 / runs, is
    added to that of the bootstrap; the interval is that of Student's t with the degrees of freedom of Welch and
    Satterthwaite. What runs differ by on the same items is in both parts, which makes it a little too wide.

    Args:
        a: One group.
        b: The other, on the same items.
        transform: Of ratios, elementwise, as `evaluation.metrics.metric.Metric.transform`.
        seed: Of the bootstrap.
    """
    of_a, of_b = a.values(transform), b.values(transform)
    value = float(of_b.mean() - of_a.mean())
    change = b.items - a.items
    same = np.isclose(b.items, a.items, rtol=1e-9, atol=1e-12)
    higher, lower = int(np.sum(~same & (change > 0))), int(np.sum(~same & (change < 0)))
    sign_p = float(stats.binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0
    counts = {"higher": higher, "lower": lower, "equal": int(same.sum()), "sign_p": sign_p}
    of = "items and runs" if max(a.runs, b.runs) > 1 else "items"
    n = a.amounts.shape[1]
    resampled = bootstrap(a, b, transform, seed) if n > 1 else np.empty(0)
    if len(resampled) < 2:
        return Difference(value, None, None, None, of, **counts)
    if max(np.ptp(resampled), np.ptp(of_a), np.ptp(of_b)) < 1e-12 * max(1.0, abs(value)):
        return Difference(value, None, None, 0.0, of, **counts)  # an interval of no width would be sure of everything
    if of == "items":
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(end) for end in np.quantile(resampled, (tail, 1 - tail)))
        return Difference(value, low, high, float(np.std(resampled, ddof=1)), of, **counts)
    parts = [(float(np.var(resampled, ddof=1)), n - 1)]
    parts += [(float(np.var(each, ddof=1) / len(each)), len(each) - 1) for each in (of_a, of_b) if len(each) > 1]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts) if total else math.inf
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Difference(value, value - half, value + half, math.sqrt(total), of, **counts)


def bootstrap(a: Measured, b: Measured, transform: Transform, seed: int = SEED) -> np.ndarray:
    """(RESAMPLES,): B - A of resampled items, the same ones for all runs of both groups.

    Resamples in which a run has no weight, but has some over all items, are left out, as `ratio` leaves them out.
    """
    amounts, weights = (np.concatenate(pair) for pair in ((a.amounts, b.amounts), (a.weights, b.weights)))
    weightless = ~weights.any(axis=1)
    found = []
    for counts in _resamples(amounts.shape[1], seed):
        totals = counts @ weights.T  # (resamples, runs)
        totals[:, weightless] = 1.0
        kept = (totals > 0).all(axis=1)
        scores = transform((counts @ amounts.T)[kept] / totals[kept])
        found.append(scores[:, a.runs :].mean(axis=1) - scores[:, : a.runs].mean(axis=1))
    differences = np.concatenate(found)
    return differences[np.isfinite(differences)]


def mean_over_runs(values: np.ndarray) -> tuple[float, float | None]:
    """Mean of the scores of runs (runs,), and its standard error s / sqrt(runs); None for a single run."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def _resamples(n: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n items is drawn, (resamples, n), RESAMPLES rows in all."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // n)
    for start in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
