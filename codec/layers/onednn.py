"""PyTorch's operators for matrix products through oneDNN on the CPU. They are private: all calls are here.

PyTorch multiplies float32 matrices on the CPU with MKL, which repacks the weights in every call and, on processors of
other makers, leaves their widest instructions unused. oneDNN's operators do neither; the arithmetic is float32 either
way. None of them knows gradients or autocast.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

OPERATORS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")


@cache
def is_available() -> bool:
    """Whether this PyTorch has the operators. Where it has not, nothing else here may be called but `is_supported`."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)


@cache
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16; without, PyTorch does it number by number, many times slower."""
    return is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def is_supported(weight: Tensor) -> bool:
    """Whether oneDNN multiplies with this matrix."""
    if weight.device.type != "cpu" or not is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return has_bfloat16()
    return weight.dtype == torch.float32


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times weight (out, in), plain or packed, plus bias (out,)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def multiply_add(x: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    """The product of x (..., in) and weight (out, in), added to `other` (..., out) in one pass."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, None, "add")


def packed(weight: Tensor, rows: int) -> Tensor:
    """A copy of weight (out, in) in the layout that suits the processor for `rows` rows; any number works."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
