"""What the training benchmarks feed their models, and the floating-point operations that a step of it asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from lm_generate import SIZES, Size
from torch import Tensor

from auditory_sentences.stream.packing import best_fit
from codec.tokens import AudioTokens
from lm.losses import select_targets
from lm.model import UniAudioForConditionalGeneration
from lm.rows import (
    Rows,
    audio_rows,
    collate,
    concatenate,
    text_rows,
)
from lm.vocabulary import VocabularyLayout


@dataclass(frozen=True)
class Workload:
    """A model and how much of what it is fed: rows in a packed entry, rows of sentences in all, seconds of a clip."""

    model: Size
    context: int
    rows: int
    clip_seconds: tuple[float, float]


WORKLOADS = {
    "tiny": Workload(Size((32, 2, 4, 2, 64), (16, 2, 4, 2, 32), (2, 1), (12, 20), 50), 128, 400, (0.5, 2.0)),
    "mid": Workload(SIZES["mid"], 512, 2048, (1.0, 20.0)),
    "3b": Workload(SIZES["3b"], 2048, 8192, (1.0, 20.0)),
}


@dataclass(frozen=True)
class Batch:
    """Inputs of a step: (B, T, 9), (B, T, 9), (B, T) and, where sentences are packed, positions (B, T)."""

    ids: Tensor
    mask: Tensor
    loss: Tensor
    position_ids: Tensor | None


@dataclass(frozen=True)
class Demand:
    """What a step asks for: rows of sentences (never padding), those that hold audio, targets that count in the loss,
    and pairs of rows that see each other, n (n + 1) / 2 in a sentence of n rows.
    """

    rows: int
    audio_rows: int
    text_targets: int
    audio_targets: int
    pairs: int

    @classmethod
    def of(cls, batch: Batch) -> Demand:
        """That of packed sentences, whose positions tell them apart."""
        there = batch.mask.any(-1)  # (B, T)
        is_text, is_audio, weight = select_targets(batch.mask, batch.loss, batch.position_ids)
        return cls(
            rows=int(there.sum()),
            audio_rows=int(batch.mask[..., 0].sum()),
            text_targets=int((weight * is_text > 0).sum()),
            audio_targets=int((weight * is_audio > 0).sum()),
            pairs=int((batch.position_ids + 1)[there].sum()),
        )

    def flop(self, model: UniAudioForConditionalGeneration) -> float:
        """Floating-point operations of forward and backward, where

            FLOP = c * (rows * W + text targets * W_text + audio targets * W_audio) + 12 * width * layers * pairs

        W are the weights of all layers but the depth decoder's, W_text those of the text head, W_audio those of the
        audio heads plus eight times the depth decoder's; layers of the row transformers. c is 6 for a weight that
        learns: 2 forward, 2 for the gradient of its input, 2 for its own. A frozen weight under LoRA has no gradient
        of its own: 4 (the few below the lowest one that learns would need 2, and are counted as 4). Attention inside
        the depth decoder (eight positions) is left out, and so is whatever is computed a second time.
        """

        def weighed(*modules: torch.nn.Module) -> int:
            named = [(n, p) for module in modules for n, p in module.named_parameters()]
            return sum(_cost(p) for n, p in named if p.ndim == 2 and "embed_tokens" not in n)

        groups = (model.understanding, model.cross_modal, model.generation)
        linear = self.rows * weighed(*groups) + self.text_targets * _cost(model.lm_head.weight)
        linear += self.audio_targets * (_cost(model.audio_head) + 8 * weighed(model.depth_decoder))
        shape = model.config.cross_modal
        width = shape.num_attention_heads * model.cross_modal.layers[0].self_attn.head_dim
        layers = sum(len(group.layers) for group in groups)
        return float(linear) + 12.0 * width * layers * self.pairs


def _cost(weights: Tensor) -> int:
    return (6 if weights.requires_grad else 4) * weights.numel()


def draw_sentences(workload: Workload, seed: int = 0) -> list[Rows]:
    """Sentences of `workload.rows` rows or a little more, none longer than the context.

    Of ten sentences four transcribe, three speak, two caption and one is text alone: by rows, most of it is audio.
    """
    draw = random.Random(seed)
    layout = workload.model.layout
    sentences: list[Rows] = []
    while sum(map(len, sentences)) < workload.rows:
        low, high = workload.clip_seconds
        seconds = low * (high / low) ** draw.random()  # short clips are the common ones
        words = max(3, round(4 * seconds))  # text ids: speech has about three words a second
        task = draw.choices(("transcribe", "speak", "caption", "text"), (4, 3, 2, 1))[0]
        if task == "transcribe":
            parts = [_text(draw, 8, layout), _clip(draw, seconds, layout), _text(draw, words, layout, is_target=True)]
        elif task == "speak":
            parts = [_text(draw, 8 + words, layout), _clip(draw, seconds, layout, is_target=True)]
        elif task == "caption":
            parts = [_text(draw, 8, layout), _clip(draw, seconds, layout), _text(draw, 12, layout, is_target=True)]
        else:
            parts = [_text(draw, draw.randint(16, workload.context // 2), layout, is_target=True)]
        sentences.append(concatenate(parts).prefix(workload.context))
    return sentences


def _text(draw: random.Random, length: int, layout: VocabularyLayout, is_target: bool = False) -> Rows:
    return text_rows([draw.randrange(9, layout.text_size) for _ in range(length)], layout, is_target)


def _clip(draw: random.Random, seconds: float, layout: VocabularyLayout, is_target: bool = False) -> Rows:
    """Descriptive frames at 5 Hz, then structural ones at 12.5 Hz."""

    def codes(cards: int, rate: float) -> Tensor:
        return torch.tensor([[draw.randrange(cards) for _ in range(int(rate * seconds) + 1)] for _ in range(8)])

    ids = {stream.name: codes(stream.codes, stream.rate) for stream in layout.streams}
    tokens = AudioTokens(ids, max(1, int(seconds * layout.sample_rate)), layout.audio_fingerprint)
    return concatenate([audio_rows(frames, is_target) for _, frames in layout.frames(tokens, "audio")])


def pack(sentences: list[Rows], context: int, layout: VocabularyLayout) -> Batch:
    """Sentences end to end in entries of `context` rows, padding included, with positions that restart."""
    packs = best_fit({i: len(rows) for i, rows in enumerate(sentences)}, context)
    full = text_rows([0] * context, layout, is_target=False)  # the others are padded to its length
    rows = collate([full, *(concatenate([sentences[i] for i in members]) for members in packs)], layout)
    positions = torch.zeros(len(packs), context, dtype=torch.int64)
    for entry, members in zip(positions, packs, strict=True):
        lengths = [len(sentences[i]) for i in members]
        lengths.append(len(entry) - sum(lengths))  # padding is a sentence of its own
        entry.copy_(torch.cat([torch.arange(length) for length in lengths]))
    return Batch(rows.ids[1:], rows.mask[1:], rows.loss[1:], positions)
