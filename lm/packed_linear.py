"""Linear layers through oneDNN on the CPU: several times faster than the default path for the few rows of decoding.

PyTorch multiplies fp32 matrices on the CPU with MKL, which repacks the weights in every call and, on processors of
other makers, leaves their widest instructions unused. oneDNN's operators do neither; the arithmetic is fp32 either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Where oneDNN is faster without a packed copy too: for many rows, and for a matrix that does not fit the inner caches.
MANY_ROWS = 16
LARGE_MATRIX = 1 << 18


def is_supported(weight: Tensor) -> bool:
    """Whether oneDNN multiplies with this matrix."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def is_plain(module: nn.Module) -> bool:
    """Whether the module is a linear layer on the CPU whose output is its weight times its input and nothing else."""
    return (
        type(module) is nn.Linear
        and module.bias is None
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and is_supported(module.weight)
    )


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., in) times weight (out, in), plain or packed, by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class PackedLinear:
    """A copy of a weight matrix in the layout that suits the processor. Later changes of the weight do not reach it."""

    def __init__(self, weight: Tensor, rows: int):
        """weight (out, in); rows: how many the layout is made for (any number works)."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        return multiply(x, self._weight)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The product with x added to `other`, in one pass."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, None, "add")


def pack(modules: Sequence[nn.Module], rows: int) -> PackedLinear | None:
    """Linear layers of the same input as one packed matrix, outputs side by side.

    None where they are no plain linear layers on the CPU (adapters, quantised, biased, on an accelerator), or where
    there is only one row to multiply at a time: then reading the weights is most of the work, and a second copy of them
    is not worth what packing saves.
    """
    if rows < 2 or not all(map(is_plain, modules)):
        return None
    return PackedLinear(torch.cat([module.weight for module in modules]), rows)
