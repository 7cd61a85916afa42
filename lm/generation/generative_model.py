"""What generation needs of a language model: its parts, by the names that the paper gives them (UniAudio 2.0 §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from lm.config import UniAudioConfig
from lm.generation.int8 import Int8Heads

if TYPE_CHECKING:
    from transformers import LlamaModel  # or what has its parts: Qwen3Model

    from lm.depth_decoder import DepthDecoder


class GenerativeModel(Protocol):
    """`lm.model.UniAudioForConditionalGeneration`, or what has the same parts."""

    config: UniAudioConfig
    device: torch.device
    training: bool
    understanding: LlamaModel  # expert layers before the cross-modal ones
    cross_modal: LlamaModel  # LLaMA, with the text embeddings
    generation: LlamaModel  # expert layers behind them
    depth_decoder: DepthDecoder
    lm_head: nn.Module  # final vectors (..., d) -> logits (..., text ids)
    audio_embeddings: nn.Embedding  # of all codebooks, one after another
    audio_head: Tensor | Int8Heads  # (C, d_depth, V)

    def embed_frames(self, frames: Tensor) -> Tensor:
        """Audio row ids (..., C) -> sum of their embeddings (..., d)."""

    def last_hidden_state(self, ids: Tensor, mask: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """Rows (B, S, columns), twice, and their positions (B, S) -> final vectors (B, S, d)."""

    def eval(self) -> GenerativeModel:
        """Evaluation mode."""

    def train(self, mode: bool = True) -> GenerativeModel:
        """Training mode, or with `mode` False evaluation mode."""
