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
    lm_head: nn.Module
    audio_embeddings: nn.Embedding
    audio_head: Tensor | Int8Heads

    def embed_frames(self, frames: Tensor) -> Tensor: ...

    def last_hidden_state(self, ids: Tensor, mask: Tensor, position_ids: Tensor | None = None) -> Tensor: ...

    def eval(self) -> GenerativeModel: ...

    def train(self, mode: bool = True) -> GenerativeModel: ...
