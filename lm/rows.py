"""Rows: the language model's tensor. A row is one step: the audio columns and a text column, one modality active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lm.vocabulary import VocabularyLayout


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows in order; after `collate` the same with a leading batch dimension."""

    # (T, columns) int64, nine columns for eight codebooks
    ids: Tensor
    # (T, columns) bool, which columns are active
    mask: Tensor
    # (T,) float32, weight of a row as a target
    loss: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return self.ids.shape[-2]

    def prefix(self, length: int) -> Rows:
        """The first `length` rows."""
        return Rows(self.ids[:length], self.mask[:length], self.loss[:length])


def text_rows(ids: Sequence[int], layout: VocabularyLayout, is_target: bool) -> Rows:
    """One row per text id; the audio columns are 0 and inactive.

    Args:
        ids: Of the text.
        layout: Vocabulary of the model.
        is_target: Whether the rows have weight 1 as targets, or 0.
    """
    rows = torch.zeros(len(ids), layout.num_columns, dtype=torch.int64)
    rows[:, -1] = torch.as_tensor(ids, dtype=torch.int64)
    mask = torch.zeros(len(ids), layout.num_columns, dtype=torch.bool)
    mask[:, -1] = True
    return Rows(rows, mask, torch.full((len(ids),), float(is_target)))


def audio_rows(frames: Tensor, is_target: bool, codebooks: int | None = None) -> Rows:
    """One row per frame; the text column is 0 and inactive.

    Args:
        frames: (num_codebooks, T) ids as they stand in a row.
        is_target: Whether the rows have weight 1 as targets, or 0.
        codebooks: Of the stream: the columns behind them are inactive too; None: it has all.
    """
    columns, length = frames.shape
    rows = torch.zeros(length, columns + 1, dtype=torch.int64)
    rows[:, :-1] = frames.T
    mask = torch.zeros(length, columns + 1, dtype=torch.bool)
    mask[:, : columns if codebooks is None else codebooks] = True
    return Rows(rows, mask, torch.full((length,), float(is_target)))


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows one after another."""
    return Rows(
        torch.cat([part.ids for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.loss for part in parts]),
    )


def drop_conditions(rows: Rows, layout: VocabularyLayout, stream: int = 0) -> Rows:
    """The same rows with every id replaced by a padding id: the unconditional half of guidance (§B.4).

    Masks and length stay. Unlike the published loader, the padding id of a later stream carries its offset here too, as
    it does in batch padding.

    Args:
        rows: Of one segment.
        layout: Vocabulary of the model.
        stream: Index of the stream whose padding id audio rows get: their own.
    """
    ids = torch.full_like(rows.ids, layout.pad(stream))
    ids[:, -1] = layout.text_pad
    kept = rows.mask.clone()
    kept[:, :-1] |= rows.mask[:, :1]  # columns that the stream does not use hold its padding id too
    return replace(rows, ids=ids * kept)


def collate(batch: Sequence[Rows], layout: VocabularyLayout) -> Rows:
    """Right-pad to the longest: ids and mask (B, T, columns), loss (B, T). Padding has mask 0 and loss 0 (§B.4)."""
    longest = max(len(rows) for rows in batch)
    ids = torch.full((len(batch), longest, layout.num_columns), layout.pad(len(layout.streams) - 1))
    ids[:, :, -1] = layout.text_pad
    mask = torch.zeros(len(batch), longest, layout.num_columns, dtype=torch.bool)
    loss = torch.zeros(len(batch), longest)
    for i, rows in enumerate(batch):
        ids[i, : len(rows)] = rows.ids
        mask[i, : len(rows)] = rows.mask
        loss[i, : len(rows)] = rows.loss
    return Rows(ids, mask, loss)


def unpad(ids: Tensor, mask: Tensor) -> list[Rows]:
    """What `collate` put together, (B, T, columns) twice, as rows of each entry, unpadded, on the CPU; no targets.

    Padding is what has no active column, at either end.
    """
    parts = []
    for one, active in zip(ids.cpu(), mask.bool().cpu(), strict=True):
        there = active.any(-1)  # (T,)
        parts.append(Rows(one[there], active[there], torch.zeros(int(there.sum()))))
    return parts
