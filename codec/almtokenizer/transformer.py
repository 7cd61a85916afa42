"""Transformer layers that look so far and no further, in time rather than in positions of the sequence.

Patches and queries stand at their times, in patches, whatever lies between them: a stack looks equally far at every
window, and what it makes of a stretch of sound depends on no more than layers x look_back patches before it, and as
many times look_ahead behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.almtokenizer.config import TransformerConfig
from codec.layers.fast_linear import FastLinear
from codec.layers.rotary import rotary_frequencies, rotate

_BASE = 10_000.0  # of the rotary frequencies
_STEEPEST, _OCTAVES = 2.0, 8  # of what distance costs the heads


class Transformer(nn.Module):
    """Pre-norm layers with rotary positions, and a norm at the end.

    What is far away counts less from the start, to each head differently (ALiBi, Press et al. 2022): a query and its
    patches find each other without having to learn that first.

    Attributes:
        reach: Patches before and after a time on which what is made of it depends, at most.
    """

    slopes: Tensor  # (heads,) what a patch of distance takes from the logarithm of a head's attention

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__()
        self.look_back, self.look_ahead = config.look_back, config.look_ahead
        self.reach = config.layers * config.look_back, config.layers * config.look_ahead
        self.layers = nn.ModuleList(Layer(dim, config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.head_dim = dim // config.heads
        places = torch.arange(config.heads) / config.heads
        self.register_buffer("slopes", _STEEPEST * 2.0 ** (-_OCTAVES * places), persistent=False)

    def forward(self, x: Tensor, times: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read a sequence.

        Args:
            x: (B, L, dim).
            times: (L,) of its positions, in patches, ascending.
            mask: (B, L) bool; nobody looks at what is False. None: all True.

        Returns:
            (B, L, dim).
        """
        angles = times[:, None] * rotary_frequencies(self.head_dim, _BASE, x.device)
        angles = torch.cat([angles, angles], dim=1)
        rotation = angles.cos(), angles.sin()
        later = times[None, :] - times[:, None]
        seen = (later >= -self.look_back) & (later <= self.look_ahead)  # (L, L)
        if mask is not None:
            # Each sees itself: beyond a clip's end a position that sees nothing would be no number.
            seen = (seen & mask[:, None, None]) | torch.eye(len(times), dtype=torch.bool, device=x.device)
        bias = (-self.slopes[:, None, None] * later.abs()).masked_fill(~seen, -torch.inf)  # (B or none, H, L, L)
        for layer in self.layers:
            x = layer(x, rotation, bias)
        return self.norm(x)


class Layer(nn.Module):
    """Self-attention and a gated feed-forward layer, each after a norm and added to what comes in."""

    def __init__(self, dim: int, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = FastLinear(dim, 3 * dim, bias=False)
        self.out = FastLinear(dim, dim, bias=False)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.up = FastLinear(dim, 2 * config.feed_forward)
        self.down = FastLinear(config.feed_forward, dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], bias: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, H, L, D)
            for part in self.qkv(self.attention_norm(x)).chunk(3, dim=2)
        )
        heard = F.scaled_dot_product_attention(rotate(q, rotation), rotate(k, rotation), v, attn_mask=bias.to(q.dtype))
        x = x + self.out(heard.transpose(1, 2).flatten(2))
        value, gate = self.up(self.feed_forward_norm(x)).chunk(2, dim=2)
        return x + self.down(F.silu(gate) * value)
