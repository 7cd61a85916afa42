"""Masks of padded batches."""

from __future__ import annotations

import torch
from torch import Tensor


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Which positions of a padded batch belong to each entry.

    Args:
        lengths: (B,) positions of each entry, in any unit.
        size: Positions of the padded batch, in the same unit.

    Returns:
        (B, size) bool on the device of `lengths`, True where position < length.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]
