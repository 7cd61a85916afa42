"""Rotary position embeddings (Su et al. 2021, "RoFormer"), halves turned against each other.

The codec's transformers and the language model's cached layers compute the same rotation in two forms. `rotate` turns
the leading dimensions and leaves the others. `SignedRotary` serves decoding step by step: it keeps the tables of all
positions, with the sign of the rotation in the sine, so that a step is one multiplication, one roll and one fused
multiply-add. The forms round differently, and each model keeps the one its numbers were made with.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_frequencies(dims: int, base: float, device: torch.device | None = None) -> Tensor:
    """(dims / 2,) angle per position of each pair of dimensions: base ** (-2 i / dims)."""
    return base ** -(torch.arange(0, dims, 2, device=device, dtype=torch.float32) / dims)


def rotary_table(length: int, dims: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the positions 0 to length - 1.

    Args:
        length: Number of positions.
        dims: Dimensions that are turned; even.
        base: Of the geometric series of frequencies.
        device: Where the tables lie.

    Returns:
        cos and sin, (length, dims) each, the angles repeated for the two halves.
    """
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] * rotary_frequencies(dims, base, device)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the leading dimensions of vectors by the angles of their positions; the other dimensions pass.

    Args:
        x: (..., D) vectors.
        rotation: cos and sin as `rotary_table` makes them, shaped to broadcast against x, with dims <= D.

    Returns:
        Vectors of the shape of x.
    """
    cos, sin = rotation
    dims = cos.shape[-1]
    turned, rest = x[..., :dims], x[..., dims:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
    return torch.cat([turned, rest], dim=-1)


class SignedRotary:
    """Tables of all positions for decoding step by step."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        """cos, sin: (positions, head) or (B, S, head) tables, the angles repeated for the two halves."""
        half = sin.shape[-1] // 2
        self.cos = cos
        self.signed_sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)  # (-second, first) is a signed roll

    def at(self, positions: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Tables for positions (B, S) or a slice of S -> two of (B or 1, S, 1, head)."""
        cos, sin = self.cos[positions], self.signed_sin[positions]
        return (cos[:, :, None], sin[:, :, None]) if cos.ndim == 3 else (cos[None, :, None], sin[None, :, None])


def rotate_signed(vectors: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding of (B, S, heads, head) by tables of `SignedRotary.at`."""
    cos, signed_sin = tables
    return torch.addcmul(vectors * cos, vectors.roll(vectors.shape[-1] // 2, -1), signed_sin)
