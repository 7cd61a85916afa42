"""Labels of clips, read off their descriptive frames by linear layers: an auxiliary loss of the descriptive branch.

A text model learns a transcript long before it learns to name one attribute of a voice: that is one word of a caption
now and then. Here every clip whose label is known teaches it, at each update. The heads see what a linear probe sees
(evaluation/token_measures/probes.py), and are of training alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LabelHeads(nn.Module):
    """One linear classifier for each label, on mean and deviation over the frames of a clip.

    Args:
        dim: channels of a frame.
        values: label -> its values; others that a clip may have are passed over.
    """

    def __init__(self, dim: int, values: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.values = {label: {value: place for place, value in enumerate(known)} for label, known in values.items()}
        # In a list: a label's name may hold what a module's cannot.
        self.heads = nn.ModuleList(nn.Linear(2 * dim, len(known)) for known in self.values.values())

    def forward(self, frames: Tensor, mask: Tensor, labels: Sequence[Mapping[str, str]]) -> Tensor:
        """Mean cross-entropy over all labels that are known, each in units of a guess among its values; a scalar.

        Args:
            frames: (B, T, dim).
            mask: (B, T) bool, False beyond each clip.
            labels: of the B clips; 0 where none of theirs is known.
        """
        weight = mask[:, :, None].to(frames.dtype)
        count = weight.sum(1).clamp(min=1.0)
        mean = (frames * weight).sum(1) / count  # (B, dim)
        variance = ((frames - mean[:, None]).square() * weight).sum(1) / count
        pooled = torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)
        losses = []
        for head, (label, places) in zip(self.heads, self.values.items(), strict=True):
            known = [(row, places[own[label]]) for row, own in enumerate(labels) if own.get(label) in places]
            if known:
                rows, targets = (torch.tensor(column, device=frames.device) for column in zip(*known, strict=True))
                chance = torch.tensor(float(len(places))).log()
                losses.append(F.cross_entropy(head(pooled[rows]), targets, reduction="none") / chance)
        return torch.cat(losses).mean() if losses else frames.new_zeros(())
