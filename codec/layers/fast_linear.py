"""A linear layer that takes the faster of two matrix products on the CPU.

PyTorch gives products of float32 matrices to MKL, and those of bfloat16 and of compiled graphs to oneDNN. MKL is slower
on processors of other makers than its own: half as fast on an AMD EPYC with AVX-512 (benchmarks/codec_speed.py). Where
PyTorch has both, this layer computes with oneDNN what needs no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codec.layers.onednn import is_available, multiply

# Whether products are given to oneDNN; a benchmark that compares the two switches it off.
ONEDNN = is_available() and torch.backends.mkl.is_available()


class FastLinear(nn.Linear):
    """nn.Linear with the same parameters, gradients and, but for rounding, values."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        if self._suits_onednn(x):
            return multiply(x, self.weight, self.bias)
        return super().forward(x)

    def _suits_onednn(self, x: Tensor) -> bool:
        # The operator knows no gradient and no autocast. Others than float32 are with oneDNN already.
        return (
            ONEDNN
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )
