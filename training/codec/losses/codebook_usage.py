"""How well the codebooks are used: the first thing to look at while a codec is trained."""

from __future__ import annotations

import torch
from torch import Tensor


class CodebookUsage:
    """Counts of the ids since the last report.

    Args:
        codes: size of every codebook.
        groups: name -> the codebooks of that name, columns of the ids.
    """

    def __init__(self, codes: int, groups: dict[str, range]) -> None:
        self.codes, self.groups = codes, groups
        self._counts = torch.zeros(max(g.stop for g in groups.values()), codes)

    def count(self, ids: Tensor) -> None:
        """Add ids (..., codebooks) int64; negative ones (beyond a clip) are ignored."""
        for column, counts in zip(ids.detach().cpu().flatten(0, -2).T, self._counts, strict=True):
            counts += torch.bincount(column[column >= 0], minlength=self.codes)

    def report(self) -> dict[str, float]:
        """Means over the codebooks of each group; starts a new count.

        Returns:
            GROUP_usage: share of the codes that occurred; GROUP_dead: number of those that did not; GROUP_perplexity:
            number of codes that, used equally often, would have the same entropy.
        """
        share = self._counts / self._counts.sum(1, keepdim=True).clamp(min=1)
        usage = (self._counts > 0).float().mean(1)
        perplexity = torch.exp(-(share * share.clamp(min=1e-12).log()).sum(1))
        values = {}
        for name, columns in self.groups.items():
            values[f"{name}_usage"] = float(usage[columns.start : columns.stop].mean())
            values[f"{name}_dead"] = self.codes * (1 - values[f"{name}_usage"])
            values[f"{name}_perplexity"] = float(perplexity[columns.start : columns.stop].mean())
        self._counts.zero_()
        return values
