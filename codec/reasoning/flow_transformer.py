"""The estimator of the flow decoder: a transformer that predicts a velocity (ReasoningCodec, decoder).

Non-causal, conditioned on the flow time through one shared modulation ("adaLN-single"): six vectors (shift, scale, gate
for attention and for the feed-forward part) are computed once from the time and offset by a small table in every block.
The published decoder has 32 layers, 24 heads of 64 and 931.8 M parameters; every size is an argument.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.fast_linear import FastLinear

_TIME_FEATURES = 512  # cosines and sines of the flow time
_NORM_EPS = 1e-6


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """(length, dim): interleaved sine and cosine of the position at geometrically falling frequencies."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10_000.0) / dim))
    table = torch.zeros(length, dim)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)
    return table


class FrameProjection(nn.Module):
    """A convolution over three frames, scaled to keep the variance, then a linear layer."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim_in, dim_out, kernel_size=3, padding=1)
        self.linear = FastLinear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2)) * 3**-0.5  # (B, dim_out, T)
        return self.linear(y.transpose(1, 2))  # (B, T, dim_out)


class TimeModulation(nn.Module):
    """Flow time -> embedding, and the six modulation vectors that all blocks share."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(_TIME_FEATURES, dim)
        self.linear_2 = nn.Linear(dim, dim)
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t (B,) in [0, 1] -> embedding (B, dim), modulation (B, 6 * dim)."""
        half = _TIME_FEATURES // 2
        frequency = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10_000.0) / half))
        angle = (t.float() * 1000.0)[:, None] * frequency  # up to a thousand radians: must stay in fp32
        features = torch.cat([angle.cos(), angle.sin()], dim=1).to(self.linear_1.weight.dtype)
        embedding = self.linear_2(F.silu(self.linear_1(features)))
        return embedding, self.modulation(F.silu(embedding))


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (FastLinear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        """x (B, T, dim); key_mask (B, 1, 1, T) bool, False at frames that are masked."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, head_dim)
            for layer in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
        return self.out(y.transpose(1, 2).flatten(2))


class FlowBlock(nn.Module):
    """Attention and feed-forward, each normed without own weights, shifted and scaled by the time, and gated."""

    def __init__(self, dim: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.modulation_offset = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.attention = SelfAttention(dim, heads)
        self.ff_in = FastLinear(dim, ff_mult * dim)
        self.ff_out = FastLinear(ff_mult * dim, dim)

    def forward(self, x: Tensor, modulation: Tensor, key_mask: Tensor | None) -> Tensor:
        """x (B, T, dim), modulation (B, 6, dim) -> (B, T, dim)."""
        m = (self.modulation_offset + modulation).unsqueeze(2)  # (B, 6, 1, dim)
        shift_attention, scale_attention, gate_attention, shift_ff, scale_ff, gate_ff = m.unbind(dim=1)
        y = F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS) * (1 + scale_attention) + shift_attention
        x = x + gate_attention * self.attention(y, key_mask)
        y = F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS) * (1 + scale_ff) + shift_ff
        return x + gate_ff * self.ff_out(F.gelu(self.ff_in(y), approximate="tanh"))


class FlowTransformer(nn.Module):
    """Velocity of the latents at a flow time, given conditioning.

    Args:
        dim_in: channels of the input (noisy latents, context latents and conditioning side by side)
        dim_out: channels of the velocity
        layers, heads, head_dim: size; the width is heads * head_dim
        max_frames: the most frames of one call
    """

    positions: Tensor  # (max_frames, dim)

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        layers: int,
        heads: int,
        head_dim: int,
        ff_mult: int = 4,
        max_frames: int = 3000,
    ) -> None:
        super().__init__()
        dim = heads * head_dim
        self.input = FrameProjection(dim_in, dim)
        self.time = TimeModulation(dim)
        self.blocks = nn.ModuleList(FlowBlock(dim, heads, ff_mult) for _ in range(layers))
        self.output_offset = nn.Parameter(torch.randn(2, dim) / dim**0.5)
        self.output = FrameProjection(dim, dim_out)
        self.register_buffer("positions", sinusoidal_positions(max_frames, dim), persistent=False)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Velocity (B, T, dim_out).

        x (B, T, dim_in), t (B,) in [0, 1], mask (B, T) bool or None. Frames where the mask is False are no part of
        the clip: zero for every convolution and invisible to attention, so a padded clip gives what it gives alone.

        Raises:
            ValueError: T exceeds `max_frames`.
        """
        if x.shape[1] > self.positions.shape[0]:
            raise ValueError(
                f"{x.shape[1]} frames in one call of a flow transformer made for {self.positions.shape[0]}"
            )
        keep = None if mask is None else mask[:, :, None]  # (B, T, 1)
        key_mask = None if mask is None else mask[:, None, None, :]  # (B, 1, 1, T)
        if keep is not None:
            x = x * keep
        h = self.input(x) + self.positions[: x.shape[1]].to(x.dtype)  # (B, T, dim)
        embedding, modulation = self.time(t)
        modulation = modulation.unflatten(1, (6, -1))  # (B, 6, dim)
        for block in self.blocks:
            h = block(h, modulation, key_mask)
        shift, scale = (self.output_offset + embedding[:, None]).unsqueeze(2).unbind(dim=1)  # (B, 1, dim) each
        h = F.layer_norm(h, h.shape[-1:], eps=_NORM_EPS) * (1 + scale) + shift
        return self.output(h if keep is None else h * keep)
