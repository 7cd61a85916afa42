"""The small fixed language models of the measures: their size, and how each is trained anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evaluation.report.progress import counted

if TYPE_CHECKING:
    from transformers import LlamaModel

LLM_SIZES = {
    "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4,
}  # fmt: skip
BATCH = 16
LEARNING_RATE, WARM_UP = 3e-3, 20


def llama(vocabulary: int, positions: int) -> LlamaModel:
    """A Llama of LLM_SIZES with random weights."""
    from transformers import LlamaConfig, LlamaModel

    ends = {"bos_token_id": None, "eos_token_id": None}
    return LlamaModel(
        LlamaConfig(vocab_size=vocabulary, max_position_embeddings=positions, use_cache=False, **ends, **LLM_SIZES)
    )


def fit(
    model: nn.Module, loss: Callable[[], Tensor], on_dev: Callable[[], float], steps: int, check: int, start: float
) -> None:
    """Trains a model with AdamW and cosine decay, and leaves it with its best weights.

    Args:
        model: Trained in place.
        loss: Draws a batch: its mean loss, a scalar.
        on_dev: What the lowest of says which weights are best.
        steps: Of training.
        check: Steps between two looks at the dev clips.
        start: What `on_dev` says of the weights at the beginning.
    """
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    best, kept = start, copy.deepcopy(model.state_dict())
    for step in counted(range(steps), steps, "steps of a small language model"):
        rate = min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * rate
        found = loss()
        optimiser.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % check == 0 or step + 1 == steps:
            now = on_dev()
            if now < best:
                best, kept = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
