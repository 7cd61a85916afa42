"""Linear layers with packed weights on the CPU: several times faster than the default path for the rows of decoding.

oneDNN multiplies them (codec/layers/onednn.py); where it cannot, nothing is packed and the layers do their work
themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.layers.onednn import is_supported, multiply, multiply_add, packed

# Where oneDNN is faster without a packed copy too: for many rows, and for a matrix beyond the innermost cache.
MANY_ROWS = 16
LARGE_MATRIX = 1 << 16


def is_plain(module: nn.Module) -> bool:
    """Whether the module is a linear layer whose output oneDNN can compute: its weight times its input, no more."""
    return (
        type(module) is nn.Linear
        and module.bias is None
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and is_supported(module.weight)
    )


class PackedLinear:
    """A copy of a weight matrix in the layout that suits the processor. Later changes of the weight do not reach it."""

    def __init__(self, weight: Tensor, rows: int):
        """weight (out, in); rows: how many the layout is made for (any number works)."""
        self._weight = packed(weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        return multiply(x, self._weight)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The product with x added to `other`, in one pass."""
        return multiply_add(x, self._weight, other)


def pack(modules: Sequence[nn.Module], rows: int) -> PackedLinear | None:
    """Linear layers of the same input as one packed matrix, outputs side by side.

    None where they are no plain linear layers on the CPU (adapters, quantised, biased, on an accelerator), or where
    there is only one row to multiply at a time: then reading the weights is most of the work, and a second copy of them
    is not worth what packing saves.
    """
    if rows < 2 or not all(map(is_plain, modules)):
        return None
    return PackedLinear(torch.cat([module.get_parameter("weight") for module in modules]), rows)
