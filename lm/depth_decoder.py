"""The depth decoder: spells out the eight codebooks of one frame, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class DepthDecoder(nn.Module):
    """A small causal transformer over positions 0..7 inside one frame (published model, §A.1 `decoder`, §A.3 step 8).

    Position 0 reads the final vector of a row, positions 1..7 the embeddings of codebooks 0..6 of the frame being
    predicted, in the width of the language model; `projection` brings both to the decoder's own width.
    """

    def __init__(self, config: PreTrainedConfig, row_width: int):
        from transformers import AutoModel  # its import brings in lm.model, which needs this module whole

        super().__init__()
        self.projection = nn.Linear(row_width, config.hidden_size, bias=False)
        self.transformer = AutoModel.from_config(config)
        self.transformer.embed_tokens = None  # it is only ever given vectors

    def forward(self, final: Tensor, previous: Tensor) -> Tensor:
        """final (N, d), previous (N, 7, d): embeddings of codebooks 0..6 -> (N, 8, d_depth)."""
        if len(final) == 0:  # the library's layers cannot reshape an empty batch
            return final.new_zeros(0, previous.shape[1] + 1, self.projection.out_features)
        vectors = self.projection(torch.cat([final[:, None], previous], dim=1))  # (N, 8, d_depth)
        return self.transformer(inputs_embeds=vectors, use_cache=False).last_hidden_state
