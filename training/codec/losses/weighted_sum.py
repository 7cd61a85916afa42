"""The loss of a trainer: named losses times named weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of weight x loss over the names of `weights`, in their order; losses without a weight are only logged."""
    return sum(weight * losses[name] for name, weight in weights.items() if name in losses)
