"""Rows: the language model's tensor. A row is one step: eight audio columns and a text column, one modality active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from codec.tokens import NUM_CODEBOOKS
from lm.vocabulary import VocabularyLayout

NUM_COLUMNS = NUM_CODEBOOKS + 1
TEXT_COLUMN = NUM_CODEBOOKS


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows in order; after `collate` the same with a leading batch dimension.

    ids: (T, 9) int64
    mask: (T, 9) bool, which columns are active
    loss: (T,) float32, weight of a row as a target
    """

    ids: Tensor
    mask: Tensor
    loss: Tensor

    def __len__(self) -> int:
        """Number of rows."""
        return self.ids.shape[-2]

    def prefix(self, length: int) -> Rows:
        """The first `length` rows."""
        return Rows(self.ids[:length], self.mask[:length], self.loss[:length])


def text_rows(ids: Sequence[int], is_target: bool) -> Rows:
    """One row per text id; the audio columns are 0 and inactive."""
    rows = torch.zeros(len(ids), NUM_COLUMNS, dtype=torch.int64)
    rows[:, TEXT_COLUMN] = torch.as_tensor(ids, dtype=torch.int64)
    mask = torch.zeros(len(ids), NUM_COLUMNS, dtype=torch.bool)
    mask[:, TEXT_COLUMN] = True
    return Rows(rows, mask, torch.full((len(ids),), float(is_target)))


def audio_rows(frames: Tensor, is_target: bool) -> Rows:
    """One row per frame of `frames` (8, T), ids as they stand in a row; the text column is 0 and inactive."""
    length = frames.shape[1]
    rows = torch.zeros(length, NUM_COLUMNS, dtype=torch.int64)
    rows[:, :NUM_CODEBOOKS] = frames.T
    mask = torch.ones(length, NUM_COLUMNS, dtype=torch.bool)
    mask[:, TEXT_COLUMN] = False
    return Rows(rows, mask, torch.full((length,), float(is_target)))


def descriptive_frames_in_rows(codes: Tensor, layout: VocabularyLayout) -> Tensor:
    """(8, T) codes -> (8, T + 2) row ids: BOS frame, codes, EOS frame (one id over all 8 codebooks)."""
    return _framed(codes, layout.descriptive_bos, layout.descriptive_eos)


def structural_frames_in_rows(codes: Tensor, layout: VocabularyLayout) -> Tensor:
    """(8, T) codes -> (8, T + 2) row ids, everything offset past the descriptive ids."""
    return _framed(codes, layout.structural_bos, layout.structural_eos) + layout.structural_offset


def audio_prompt_frames_in_rows(codes: Tensor, layout: VocabularyLayout) -> Tensor:
    """(8, T) structural codes -> (8, T) row ids of an acoustic prompt.

    The published loader replaces the first and the last frame by the prompt's BOS and EOS, which it does not offset
    (published model, §B.3); released weights have seen exactly that.
    """
    frames = codes + layout.structural_offset
    frames[:, 0], frames[:, -1] = layout.audio_prompt_bos, layout.audio_prompt_eos
    return frames


def _framed(codes: Tensor, bos: int, eos: int) -> Tensor:
    edge = torch.ones(codes.shape[0], 1, dtype=torch.int64)
    return torch.cat([edge * bos, codes, edge * eos], dim=1)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows one after another."""
    return Rows(
        torch.cat([part.ids for part in parts]),
        torch.cat([part.mask for part in parts]),
        torch.cat([part.loss for part in parts]),
    )


def drop_conditions(rows: Rows, layout: VocabularyLayout, structural: bool) -> Rows:
    """The same rows with every id replaced by a padding id: the unconditional half of guidance (§B.4).

    Masks and length stay. `structural` chooses the structural padding id for audio rows, the descriptive one otherwise.
    Unlike the published loader, the structural padding id carries its offset here too, as it does in batch padding.
    """
    pad = layout.structural_pad + layout.structural_offset if structural else layout.descriptive_pad
    ids = torch.zeros_like(rows.ids)
    ids[:, :NUM_CODEBOOKS] = pad
    ids[:, TEXT_COLUMN] = layout.text_pad
    return replace(rows, ids=ids * rows.mask)


def collate(batch: Sequence[Rows], layout: VocabularyLayout) -> Rows:
    """Right-pad to the longest: (B, T, 9), (B, T, 9), (B, T). Padding has mask 0 and loss 0 (§B.4)."""
    longest = max(len(rows) for rows in batch)
    ids = torch.full((len(batch), longest, NUM_COLUMNS), layout.structural_pad + layout.structural_offset)
    ids[:, :, TEXT_COLUMN] = layout.text_pad
    mask = torch.zeros(len(batch), longest, NUM_COLUMNS, dtype=torch.bool)
    loss = torch.zeros(len(batch), longest)
    for i, rows in enumerate(batch):
        ids[i, : len(rows)] = rows.ids
        mask[i, : len(rows)] = rows.mask
        loss[i, : len(rows)] = rows.loss
    return Rows(ids, mask, loss)


def unpad(ids: Tensor, mask: Tensor) -> list[Rows]:
    """What `collate` put together, (B, T, 9) twice, as rows of each entry without padding, on the CPU; nothing learned.

    Padding is what has no active column, at either end.
    """
    parts = []
    for one, active in zip(ids.cpu(), mask.bool().cpu(), strict=True):
        there = active.any(-1)  # (T,)
        parts.append(Rows(one[there], active[there], torch.zeros(int(there.sum()))))
    return parts
