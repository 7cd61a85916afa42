"""Weights of eight bits for generation: a row is drawn by reading all weights once, so fewer bytes are less time.

Weight-only: activations stay as they are. Every output channel has a scale of its own, symmetric around zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.io.errors import UserError

FEW_ROWS = 16  # above, unpacking the matrix once costs less than the product that unpacks for every row
KERNEL_COLUMNS = 32  # PyTorch's product reads past the end of rows that are no multiple of its vectors


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (..., out, in) -> int8 of the same shape and bfloat16 scales (..., out); weight ~ int8 * scale."""
    scales = (weight.detach().abs().amax(-1).float() / 127).clamp(min=1e-30).bfloat16()
    return (weight.detach().float() / scales[..., None].float()).round().clamp(-127, 127).to(torch.int8), scales


def multiply_int8(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """The product (..., out) with an int8 matrix, in the type of x.

    A few rows on the CPU are multiplied in bfloat16, sums in float32: PyTorch's kernel for float32 is slower than the
    product with float32 weights.

    Args:
        x: (..., in).
        weight: (out, in) int8.
        scales: (out,) of its rows.
    """
    flat = x.reshape(-1, x.shape[-1])
    if weight.device.type == "cpu" and len(flat) <= FEW_ROWS and x.shape[-1] % KERNEL_COLUMNS == 0:
        product = torch._weight_int8pack_mm(flat.bfloat16(), weight, scales.bfloat16())
    else:
        product = F.linear(flat, weight.to(x.dtype)) * scales
    return product.to(x.dtype).view(*x.shape[:-1], -1)


class _Int8(nn.Module):
    """An int8 matrix, or several, with scales. Not saved: nothing could tell it from a damaged folder."""

    weight: Tensor  # int8
    scales: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        quantised, scales = quantise(weight)
        self.register_buffer("weight", quantised)
        self.register_buffer("scales", scales)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise UserError("a model with int8 weights cannot be saved; save it before quantise_weights")


class Int8Linear(_Int8):
    """In place of a linear layer without bias."""

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self.out_features, self.in_features = weight.shape

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        return multiply_int8(x, self.weight, self.scales)


class Int8Heads(_Int8):
    """In place of the audio heads (8, d_depth, V); holds (8, V, d_depth)."""

    def __init__(self, heads: Tensor):
        super().__init__(heads.transpose(1, 2).contiguous())

    def logits(self, codebook: int, states: Tensor, low: int, high: int) -> Tensor:
        """Logits (B, high - low).

        Args:
            codebook: Whose matrix is read.
            states: (B, d_depth) of the depth decoder.
            low, high: The ids are low..high - 1.
        """
        return multiply_int8(states, self.weight[codebook, low:high], self.scales[codebook, low:high])

    def unpacked(self, dtype: torch.dtype) -> Tensor:
        """The heads as they were, (8, d_depth, V), but for what eight bits lose."""
        return (self.weight.to(dtype) * self.scales[..., None].to(dtype)).transpose(1, 2)


def quantise_weights(model: nn.Module) -> None:
    """Give the linear layers and heads of a language model int8 weights, in place and for good; embeddings stay.

    For generation on one device: it cannot be trained or saved afterwards. What it says changes a little, and a
    request's ids may depend on the size of its batch where two ids are almost equally likely.
    """
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module) is nn.Linear and module.bias is None:
                setattr(parent, name, Int8Linear(module.weight))
    if isinstance(model.audio_head, Tensor):
        heads = Int8Heads(model.audio_head)
        del model.audio_head
        model.audio_head = heads
