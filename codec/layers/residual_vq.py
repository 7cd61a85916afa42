"""Residual vector quantisation."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from codec.io.errors import UserError
from codec.layers.config import QuantiserConfig

with contextlib.suppress(ImportError):  # newer versions of the library log through loguru
    from loguru import logger

    # it warns of k-means on a first batch smaller than the codebook, which does no harm: unused codes are replaced.
    logger.disable("vector_quantize_pytorch")


class ResidualQuantiser(ResidualVQ):  # type: ignore[misc]  # vector-quantize-pytorch is not typed
    """vector-quantize-pytorch's residual VQ, which learns the codebooks; published state loads into it.

    Encoding goes a shorter way: the library prepares for training at every level and copies the codebook for each clip.

    straight_through: outside training mode, the vectors learn though the codebooks do not: gradients pass as if nothing
        were quantised, and there are losses. (The library's own way round a level scales gradients by the code's length
        over the vector's, which has no bound where a level has little left to code.)
    """

    straight_through = False
    layers: Any  # the library's, of which training may use a part

    def forward(
        self, x: Tensor, mask: Tensor | None = None, levels: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise a batch. The codebooks follow the data in training mode only.

        Args:
            x: (B, T, dim).
            mask: (B, T) bool; frames where it is False are ignored by codebooks and losses. None: all True.
            levels: How many are used, from the first on; the others rest. None: all.

        Returns:
            Quantised (B, T, dim), zero where masked; ids (B, T, levels), -1 where masked; losses (levels,): outside
            training zero, or with `straight_through` each level's mean squared distance.

        Raises:
            UserError: The codebooks are not initialised.
        """
        if self.training:
            whole, self.layers = self.layers, self.layers[:levels]
            try:
                return super().forward(x, mask=mask)
            finally:
                self.layers = whole
        used = self.layers[:levels]
        if not all(level._codebook.initted for level in used):
            raise UserError("the codebooks are not initialised: train them or load their weights")
        vectors = residual = self.project_in(x)
        chosen, of_levels, losses = torch.zeros_like(residual), [], x.new_zeros(len(used))
        for number, level in enumerate(used):
            codes = level._codebook.embed[0].to(residual.dtype)  # (K, codebook_dim)
            # The nearest in Euclidean distance; the vector's own length is the same for all codes.
            nearest = (codes.square().sum(1) - 2.0 * residual @ codes.T).argmin(-1)
            chosen, residual = chosen + codes[nearest], residual - codes[nearest]
            of_levels.append(nearest)
            if self.straight_through:
                distances = residual.square().mean(-1)  # (B, T)
                losses[number] = (distances if mask is None else distances[mask]).mean()
        if self.straight_through:
            chosen = vectors + (chosen - vectors).detach()
        quantised, ids = self.project_out(chosen), torch.stack(of_levels, dim=-1)
        if mask is not None:
            quantised, ids = quantised * mask[..., None], ids.masked_fill(~mask[..., None], -1)
        return quantised, ids, losses

    def vectors(self, ids: Tensor) -> Tensor:
        """Quantised vectors (B, T, dim) of ids (B, T, levels) >= 0; of fewer levels than there are, the first ones."""
        tables = [level._codebook.embed[0] for level in self.layers]  # of (codes, codebook_dim)
        chosen = torch.zeros_like(tables[0][ids[..., 0]])
        for level in range(ids.shape[-1]):
            chosen = chosen + tables[level][ids[..., level]]
        return self.project_out(chosen)


def residual_quantiser(dim: int, levels: int, config: QuantiserConfig) -> ResidualQuantiser:
    """A residual VQ of (..., dim) vectors with `levels` codebooks; it synchronises statistics between processes."""
    return ResidualQuantiser(
        dim=dim,
        num_quantizers=levels,
        codebook_size=config.codebook_size,
        codebook_dim=config.codebook_dim,
        decay=config.decay,
        commitment_weight=1.0,
        threshold_ema_dead_code=config.dead_code_threshold,
        rotation_trick=config.rotation_trick,
        kmeans_init=config.kmeans_init,
        sync_codebook=distributed.is_initialized() and distributed.get_world_size() > 1,
    )
