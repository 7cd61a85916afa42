"""Semantic distillation of stage 1 (UniAudio 2.0 §4.4, Eq. 13-14): understanding layers must keep what tokens mean.

The paper has a light decoder reconstruct the semantic features of a frozen encoder from the understanding layers'
output. Language-model training reads tokens and no waveforms here, so the target is the nearest thing that tokens
determine: the vectors the frozen codec's codebooks hold for them. For a descriptive frame that is the sum of its eight
residual codes (supervised with text through a language model), for a structural frame the sum of its branches (phone
codes are trained to spell out the phone encoder's features).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.tokenizer import AudioTokenizer
from lm.vocabulary import VocabularyLayout


class Target(NamedTuple):
    """What the semantic decoder must reconstruct."""

    # (B, S, dim)
    vectors: Tensor
    # (B, S) bool: rows that have one
    rows: Tensor


class SemanticTargets:
    """Looks up a frozen codec's vectors for the audio rows of a batch. Not a module: codebooks are never trained."""

    def __init__(self, codec: AudioTokenizer, layout: VocabularyLayout, device: torch.device) -> None:
        self.codec, self.layout = codec.to(device).eval(), layout
        one = {spec.name: torch.zeros(1, 1, spec.codebooks, dtype=torch.int64) for spec in codec.streams}
        self.dims = {name: codec.dequantise(name, ids).shape[-1] for name, ids in one.items()}

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor) -> dict[str, Target]:
        """ids, mask (B, S, columns) -> the target of each stream. Rows of a BOS, EOS or padding frame have none."""
        targets = {}
        for stream, offset in zip(self.layout.streams, self.layout.offsets, strict=True):
            local = ids[..., : stream.codebooks] - offset  # (B, S, codebooks)
            rows = mask[..., 0] & ((local >= 0) & (local < stream.codes)).all(-1)
            vectors = self.codec.dequantise(stream.name, local.clamp(0, stream.codes - 1)).float()
            # The same scale for every codec.
            targets[stream.name] = Target(F.layer_norm(vectors, vectors.shape[-1:]), rows)
        return targets


class SemanticDecoder(nn.Module):
    """Two layers from an understanding vector to the vector of each stream; light, and discarded after stage 1."""

    def __init__(self, width: int, dims: dict[str, int]) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.heads = nn.ModuleDict({name: nn.Linear(width, dim) for name, dim in dims.items()})

    def loss(self, understood: Tensor, targets: dict[str, Target]) -> Tensor:
        """Mean squared error per row and dimension, averaged over the streams. understood (B, S, width)."""
        hidden = F.gelu(self.hidden(understood))
        losses = []
        for name, head in self.heads.items():
            vectors, rows = targets[name]
            error = (head(hidden).float() - vectors).square().mean(-1)  # (B, S)
            losses.append((error * rows).sum() / rows.sum().clamp(min=1))
        return torch.stack(losses).mean()
