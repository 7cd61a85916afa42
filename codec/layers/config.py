"""Configuration of layers that several tokenizers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codec.io.errors import UserError
from codec.io.numbers import NonNegative, Share, Width


@dataclass(frozen=True)
class QuantiserConfig:
    """Residual vector quantisation (vector-quantize-pytorch), one stack."""

    # codes of each codebook
    codebook_size: Width = 8192
    # channels in which codes are compared
    codebook_dim: Width = 32
    # of the moving averages that the codes follow, per training batch
    decay: Share = 0.9
    # vectors per batch (a decaying average): a code that fewer choose is replaced by a vector of the batch. Must lie
    # well below frames per batch / codebook_size, or codes in use are replaced too
    dead_code_threshold: NonNegative = 2.0
    # gradients pass the quantiser by the rotation trick (Fifty et al. 2024) rather than straight through
    rotation_trick: bool = True
    # the first training batch sets the codes, by k-means
    kmeans_init: bool = True


def check_ratios(down: Sequence[int], up: Sequence[int], most: int) -> None:
    """Raise UserError unless strides on the way in and back make the same hop, of `most` samples at most."""
    if not 0 < len(down) <= 16 or not 0 < len(up) <= 16:
        raise UserError("downsampling_ratios and upsampling_ratios must name 1 to 16 stages each")
    if math.prod(down) != math.prod(up) or math.prod(down) > most:
        raise UserError(
            f"downsampling_ratios and upsampling_ratios must have the same product, of at most {most}, and have "
            f"{math.prod(down)} and {math.prod(up)}"
        )
