"""Conformer layers with rotary positions (Gulati et al. 2020), as the music encoder of ReasoningCodec stacks them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.rotary import rotary_table, rotate


class ConformerLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, each added to what came; then a norm."""

    def __init__(self, dim: int, heads: int, feed_forward: int, kernel: int) -> None:
        super().__init__()
        self.feed_forward_in = FeedForward(dim, feed_forward)
        self.attention = RotaryAttention(dim, heads)
        self.convolution = ConvolutionModule(dim, kernel)
        self.feed_forward_out = FeedForward(dim, feed_forward)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, T, dim), all of it sound; rotation: of `rotary_positions` -> (B, T, dim)."""
        x = x + 0.5 * self.feed_forward_in(x)
        x = x + self.attention(x, rotation)
        x = x + self.convolution(x)
        x = x + 0.5 * self.feed_forward_out(x)
        return self.norm(x)


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, hidden)
        self.down = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.up(self.norm(x))))


class RotaryAttention(nn.Module):
    """Bidirectional self-attention whose rotation acts before the query and key projections, not after them.

    So it was published: positions turn the normed vector, head by head, and the projections mix what was turned. The
    values are not turned.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = self.norm(x)
        turned = rotate(x.unflatten(2, (self.heads, -1)), rotation).flatten(2)  # (B, T, dim), head by head
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D)
            for part in (self.query(turned), self.key(turned), self.value(x))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ConvolutionModule(nn.Module):
    """Gated pointwise, depthwise and pointwise convolution over time."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.pointwise_in = nn.Conv1d(dim, 2 * dim, kernel_size=1, bias=False)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False)
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_out = nn.Conv1d(dim, dim, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.pointwise_in(self.norm(x).transpose(1, 2)), dim=1)  # (B, dim, T)
        return self.pointwise_out(F.silu(self.batch_norm(self.depthwise(x)))).transpose(1, 2)


def rotary_positions(length: int, head_dim: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin (length, 1, head_dim) for `ConformerLayer`."""
    cos, sin = rotary_table(length, head_dim, base, device)
    return cos[:, None], sin[:, None]
