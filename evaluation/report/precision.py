"""What the number of items allows to be said: how far two models have to be apart to be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

NORMAL_95 = 1.96  # standard errors on either side that hold 95 % of a normal distribution
APART = math.sqrt(2) * NORMAL_95  # standard errors of one score that two unpaired ones have to differ by


def told_apart(tasks: Sequence[Mapping]) -> str:
    """One sentence on the scores in percent of the tasks' entries in results.json; "" without any of several items."""
    scores = [s for t in tasks for s in t["scores"] if s["percent"] and s["scorer"] != "tokens" and s["n"] > 1]
    scores = [score for score in scores if score["value"] is not None]
    if not scores:
        return ""
    counts = [score["n"] for score in scores]
    halves = [100 * half_width(n) for n in counts]
    apart = _span([math.sqrt(2) * half for half in halves], 0)
    errors = [100 * score["stderr"] for score in scores if score["stderr"] is not None]
    actual = f" (here {_span(errors, 1)} points each)" if errors else ""
    return (
        f"Of {_span(counts, 0)} items a share near 50 % is known to ± {_span(halves, 1)} points (95 %), so two models "
        f"that are read off two such tables are told apart by about {apart} points, or in general by {APART:.1f} "
        f"standard errors{actual}; item by item (`uniaudio evaluate compare`) less is often enough."
    )


def half_width(n: int, share: float = 0.5) -> float:
    """Half the 95 % interval of a share of n items, as the normal distribution has it."""
    return NORMAL_95 * math.sqrt(share * (1 - share) / n)


def _span(values: Sequence[float], digits: int) -> str:
    """The smallest and the largest of some values: "15.5", "15.5 to 24.5"."""
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
