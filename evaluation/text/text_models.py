"""What text tasks are asked of: an audio language model on text alone, or the text model that its layers came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from codec.pretrained import weights_hash
from lm.generation.generate import generate_text
from lm.generation.settings import GenerationSettings
from lm.rows import collate, text_rows
from lm.text_backbone import load_text_model
from lm.text_tokenizer import TextTokenizer
from uniaudio.model import UniAudio


class TextModel(ABC):
    """Predicts text ids. A text begins with BOS, as both kinds of model have seen it in training."""

    tokenizer: TextTokenizer  # its text
    fingerprint: str  # hash of configuration and weights
    parameters: int  # number of them
    context: int  # ids that it sees at most

    @abstractmethod
    def logits(self, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Tensor]:
        """What the last ids of each sequence are predicted with.

        Args:
            sequences: Ids, BOS included; more of each than its count, and one more than the context at most.
            counts: How many ids at the end of each sequence are asked about.

        Returns:
            (count, text ids) float32 of each.
        """

    @abstractmethod
    def write(self, prompts: Sequence[Sequence[int]], longest: int) -> list[tuple[list[int], bool]]:
        """Continue each prompt with the likeliest ids, at most `longest`: ids without EOS, and whether EOS came."""


class UniAudioText(TextModel):
    """An audio language model: rows of text, which pass its cross-modal layers alone."""

    def __init__(self, uniaudio: UniAudio, fingerprint: str) -> None:
        self._model, self.tokenizer, self.fingerprint = uniaudio.model, uniaudio.text_tokenizer, fingerprint
        self.parameters, self.context = uniaudio.model.num_parameters(), uniaudio.context

    @torch.inference_mode()
    def logits(self, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Tensor]:
        layout = self._model.config.layout
        rows = collate([text_rows(ids[:-1], layout, is_target=False) for ids in sequences], layout)
        final = self._model.last_hidden_state(rows.ids.to(self._model.device), rows.mask.to(self._model.device))
        asked = [slice(len(ids) - 1 - count, len(ids) - 1) for ids, count in zip(sequences, counts, strict=True)]
        return [self._model.lm_head(final[i, where]).float() for i, where in enumerate(asked)]

    def write(self, prompts: Sequence[Sequence[int]], longest: int) -> list[tuple[list[int], bool]]:
        rows = [text_rows(ids, self._model.config.layout, is_target=False) for ids in prompts]
        made = generate_text(self._model, rows, GenerationSettings(max_rows=longest, top_k=1), [0] * len(rows))
        return [(one.ids, one.reason == "end") for one in made]


class PlainText(TextModel):
    """A causal language model of transformers, with a tokenizer that `TextTokenizer` reads."""

    def __init__(self, model: PreTrainedModel, tokenizer: TextTokenizer) -> None:
        self._model, self.tokenizer = model.eval(), tokenizer
        self.fingerprint = weights_hash(model.config.to_json_string(use_diff=True), model.state_dict())
        self.parameters, self.context = model.num_parameters(), model.config.max_position_embeddings

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str = "cpu") -> PlainText:
        """A folder or hub id of a text model with its tokenizer. Raises UserError where it cannot be read."""
        model = load_text_model(source, "auto")
        return cls(model.to(device), TextTokenizer.from_pretrained(source))  # type: ignore[arg-type]

    @torch.inference_mode()
    def logits(self, sequences: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Tensor]:
        ids, mask = self._padded([ids[:-1] for ids in sequences])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        asked = {"attention_mask": mask, "position_ids": positions, "logits_to_keep": max(counts)}
        logits = self._model(input_ids=ids, use_cache=False, **asked).logits  # (B, most, text ids)
        return [one[-count:].float() for one, count in zip(logits, counts, strict=True)]

    @torch.inference_mode()
    def write(self, prompts: Sequence[Sequence[int]], longest: int) -> list[tuple[list[int], bool]]:
        ids, mask = self._padded(prompts)
        eos = self.tokenizer.eos
        greedy = GenerationConfig(
            max_new_tokens=longest, do_sample=False, eos_token_id=eos, pad_token_id=eos, bos_token_id=self.tokenizer.bos
        )
        made = self._model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy)
        written = []
        for one in made[:, ids.shape[1] :].tolist():
            ended = eos in one
            written.append((one[: one.index(eos)] if ended else one, ended))
        return written

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, T), padded on the left: the ends stand below each other."""
        longest = max(map(len, sequences))
        ids = [[self.tokenizer.eos] * (longest - len(one)) + list(one) for one in sequences]
        mask = [[0] * (longest - len(one)) + [1] * len(one) for one in sequences]
        return torch.tensor(ids, device=self._model.device), torch.tensor(mask, device=self._model.device)
