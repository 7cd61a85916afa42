"""A linear layer that takes the faster of two matrix products on the CPU.

PyTorch gives products of float32 matrices to MKL, and those of bfloat16 and of compiled graphs to oneDNN. MKL is slower
on processors of other makers than its own: half as fast on an AMD EPYC with AVX-512 (benchmarks/codec_speed.py). Where
PyTorch has both, this layer computes with oneDNN what needs no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.onednn import is_available, multiply

# Whether products are given to oneDNN; a benchmark that compares the two switches it off.
ONEDNN = is_available() and torch.backends.mkl.is_available()


class FastLinear(nn.Linear):
    """nn.Linear with the same parameters, gradients and, but for rounding, values."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times weight (out, in) plus bias (out,): F.linear by the faster of the two."""
    # The operator knows no gradient and no autocast. Others than float32 are with oneDNN already.
    if (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    ):
        return multiply(x, weight, bias)
    return F.linear(x, weight, bias)
