"""Standard errors: every score of the suite is an estimate from a few test items."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000  # bootstrap resamples; their own error is about 2 % of the standard error
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A score with its standard error."""

    # the score; None where nothing could be measured
    value: float | None
    # its standard error; None for one item
    stderr: float | None
    # number of items
    n: int


def ratio(
    amounts: Sequence[float],
    weights: Sequence[float],
    transform: Callable[[np.ndarray], np.ndarray] = lambda ratios: ratios,
    seed: int = BOOTSTRAP_SEED,
) -> Estimate:
    """transform(sum of amounts / sum of weights) over items, for example word errors over words.

    Equal weights and no transform is a mean: its standard error is analytic, s / sqrt(n) with s the sample deviation.
    Where all items are right, or all wrong, s is 0 but the truth is not known: the error is that of a share of
    (k + 2) / (n + 4), after Agresti and Coull.
    Otherwise items are resampled with replacement (seeded bootstrap), because amounts and weights vary together.
    One item has no standard error. Weights of 0 alone count as 1 together.

    Args:
        amounts: Of each item.
        weights: Of each item.
        transform: Of ratios, elementwise.
        seed: Of the bootstrap.
    """
    a, w = np.asarray(amounts, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if a.shape != w.shape:
        raise ValueError(f"{len(a)} amounts but {len(w)} weights")
    if len(a) == 0:
        return Estimate(None, None, 0)
    plain = float(a.sum() / (w.sum() or 1.0))
    value = float(transform(np.array([plain]))[0])
    if not math.isfinite(value):
        return Estimate(None, None, len(a))
    if len(a) == 1:
        return Estimate(value, None, 1)
    if w[0] and np.all(w == w[0]) and value == plain:
        each = a / w[0]
        if np.all(each == each[0]) and each[0] in (0.0, 1.0):
            share = (each.sum() + 2) / (len(each) + 4)
            return Estimate(value, math.sqrt(share * (1 - share) / (len(each) + 4)), len(each))
        return Estimate(value, float(np.std(each, ddof=1) / math.sqrt(len(each))), len(each))
    rng = np.random.default_rng(seed).integers(0, len(a), size=(RESAMPLES, len(a)))  # (R, n)
    totals = w[rng].sum(axis=1)
    if not w.any():
        totals = np.ones(RESAMPLES)
    resampled = transform(a[rng].sum(axis=1)[totals > 0] / totals[totals > 0])
    error = float(np.std(resampled, ddof=1))
    return Estimate(value, error if math.isfinite(error) else None, len(a))
