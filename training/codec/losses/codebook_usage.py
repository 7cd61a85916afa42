"""How well the codebooks are used: the first thing to look at while a codec learns."""

from __future__ import annotations

import torch
from torch import Tensor


class CodebookUsage:
    """Counts of the ids since the last report.

    codes: size of every codebook; groups: name -> the codebooks of that name, columns of the ids
    """

    def __init__(self, codes: int, groups: dict[str, range]) -> None:
        self.codes, self.groups = codes, groups
        self._counts = torch.zeros(max(g.stop for g in groups.values()), codes)

    def count(self, ids: Tensor) -> None:
        """Add ids (..., codebooks) int64; negative ones (beyond a clip) do not count."""
        for column, counts in zip(ids.detach().cpu().flatten(0, -2).T, self._counts, strict=True):
            counts += torch.bincount(column[column >= 0], minlength=self.codes)

    def report(self) -> dict[str, float]:
        """For each group, means over its codebooks; starts a new count.

        usage: share of codes that occurred; dead: how many did not; perplexity: how many codes, used equally often,
        would carry as much
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
