"""Causal attention inside each of the sentences that are packed into one sequence: no score between two of them.

A mask over whole packs costs what one sentence of their length costs, most of it for pairs that the mask then forbids.
Here sentences of about one length are computed together, in plain operations with gradients of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from codec.layers.rotary import SignedRotary, rotate_signed

_SHORT = 16  # rows of a softmax
_FILLED = 0.75  # of a group, at least: its shortest sentence beside its longest


@dataclass(frozen=True)
class PackedSentences:
    """Where the sentences of a batch of packs lie, in groups of about one length.

    Rows are counted over all packs. A group that is None is the batch as it is: each entry a sentence.
    """

    # of each group, (n, L) rows of its n sentences; behind its end a sentence has the number of rows, which is none's
    groups: tuple[Tensor | None, ...] = (None,)
    # (rows,) where each is among the rows of all groups, laid end to end
    places: Tensor | None = None

    @classmethod
    def of(cls, position_ids: Tensor) -> PackedSentences:
        """Of position_ids (B, S), which restart at 0 with every sentence and go on by one inside."""
        begins = position_ids == 0
        begins[:, 0] = True
        rows = begins.numel()
        starts = begins.flatten().nonzero()[:, 0]
        lengths, order = torch.diff(starts, append=starts.new_tensor([rows])).sort(descending=True)
        starts = starts[order]
        groups: list[Tensor] = []
        while len(starts):
            count = int((lengths >= _FILLED * lengths[0]).sum())
            steps = torch.arange(int(lengths[0]), device=starts.device)
            groups.append(torch.where(steps < lengths[:count, None], starts[:count, None] + steps, rows))
            starts, lengths = starts[count:], lengths[count:]
        everything = torch.cat([group.flatten() for group in groups])
        places = everything.new_empty(rows + 1)
        places[everything] = torch.arange(len(everything), device=starts.device)
        return cls(tuple(groups), places[:-1])


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rotary: tuple[Tensor, Tensor],
    head_width: int,
    scaling: float,
    packed: PackedSentences | None = None,
) -> Tensor:
    """Rotate queries and keys by their positions, attend, and give the weighted values: (B, S, heads D).

    Args:
        query: (B, S, heads D), as the projections give them.
        key: (B, S, key heads D), as many heads or a divisor of them.
        value: (B, S, key heads D). Products are in its type.
        rotary: Cosines and sines (B or 1, S, D) of the rows' positions, either half of D the same.
        head_width: D.
        scaling: Of the scores.
        packed: Which rows form a sentence; None: each entry of the batch is one.
    """
    return _PackedAttention.apply(query, key, value, *rotary, head_width, scaling, packed or PackedSentences())


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        head_width: int,
        scaling: float,
        packed: PackedSentences,
    ) -> Tensor:
        heads = tuple(part.shape[2] // head_width for part in (query, key, value))
        rows = _Rows((query.shape[0], query.shape[1]), heads[1], head_width, packed)
        made, saved = [], []
        with torch.autocast(query.device.type, enabled=False):
            tables = SignedRotary(cos.to(query.dtype), sin.to(query.dtype)).at(slice(None))
            everything = rows.padded(_rotated(query, tables), _rotated(key, tables), value)
            for group in packed.groups:
                q, k, v = rows.taken(everything, group, heads)
                length = k.shape[1]
                future = torch.full((length, length), -torch.inf, dtype=k.dtype, device=k.device).triu_(1)
                future = future.repeat(q.shape[1] // length, 1)
                weights = _softmax(torch.baddbmm(future, q, k.transpose(1, 2), alpha=scaling))
                made.append(rows.returned(weights @ v, group))
                saved += [q, k, v, weights]
        ctx.save_for_backward(*tables, *saved)
        ctx.rows, ctx.heads, ctx.scaling = rows, heads, scaling
        return rows.joined(made)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (cos, signed_sin, *saved), rows = ctx.saved_tensors, ctx.rows
        made = []
        with torch.autocast(grad.device.type, enabled=False):
            everything = rows.padded(grad.to(saved[0].dtype))
            for number, group in enumerate(rows.packed.groups):
                q, k, v, weights = saved[4 * number : 4 * number + 4]
                (g,) = rows.taken(everything, group, ctx.heads[:1])
                weights_grad = g @ v.transpose(1, 2)
                scores_grad = torch._softmax_backward_data(weights_grad, weights, -1, weights.dtype).mul_(ctx.scaling)
                parts = (scores_grad @ k, scores_grad.transpose(1, 2) @ q, weights.transpose(1, 2) @ g)
                made.append(torch.cat([rows.returned(part, group) for part in parts], dim=1))
            widths = [heads * rows.head_width for heads in ctx.heads]
            query, key, value = rows.joined(made).split(widths, dim=2)
            back = cos, -signed_sin
            return _rotated(query, back), _rotated(key, back), value, *[None] * 5


@dataclass(frozen=True)
class _Rows:
    """How rows (B, S, heads D) go into the groups, by heads of the keys, and back."""

    shape: tuple[int, int]
    key_heads: int
    head_width: int
    packed: PackedSentences

    def padded(self, *parts: Tensor) -> Tensor:
        """(B S + 1, heads of all parts, D): with the row that is none's, where a group may ask for it."""
        count, missing = self.shape[0] * self.shape[1], int(self.packed.places is not None)
        everything = parts[0].new_empty(count + missing, sum(part.shape[2] for part in parts))
        torch.cat([part.reshape(count, -1) for part in parts], dim=1, out=everything[:count])
        everything[count:] = 0
        return everything

    def taken(self, everything: Tensor, group: Tensor | None, heads: Sequence[int]) -> list[Tensor]:
        """Of each part, (n key heads, queries of a key x L, D) of a group."""
        n, length = self.shape if group is None else group.shape
        rows = everything if group is None else everything.index_select(0, group.flatten())
        parts = rows.view(n, length, -1, self.head_width).split(list(heads), dim=2)
        by_head = [part.unflatten(2, (self.key_heads, -1)).permute(0, 2, 3, 1, 4) for part in parts]
        return [part.reshape(n * self.key_heads, -1, self.head_width) for part in by_head]

    def returned(self, values: Tensor, group: Tensor | None) -> Tensor:
        """The reverse of `taken`, of one part: (n L, heads D)."""
        n, length = self.shape if group is None else group.shape
        by_row = values.view(n, self.key_heads, -1, length, self.head_width).permute(0, 3, 1, 2, 4)
        return by_row.reshape(n * length, -1)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """(B, S, heads D) of the rows of all groups."""
        rows = parts[0] if len(parts) == 1 else torch.cat(list(parts))
        rows = rows if self.packed.places is None else rows.index_select(0, self.packed.places)
        return rows.view(*self.shape, -1)


def _rotated(rows: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rows (B, S, heads D), every head turned by the angles of its row."""
    return rotate_signed(rows.unflatten(2, (-1, tables[0].shape[-1])), tables).flatten(2)


def _softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, computed in float32, in the type of the scores.

    Over another dimension a processor computes many rows at once, which is faster where they are short.
    """
    if scores.shape[-1] > _SHORT:
        return torch.softmax(scores.float(), dim=-1).to(scores.dtype)
    columns = scores.flatten(0, -2).t().float().contiguous()
    return torch.softmax(columns, dim=0).t().to(scores.dtype, memory_format=torch.contiguous_format).view(scores.shape)
