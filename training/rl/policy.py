"""The policy of GRPO: samples analyses from an audio LLM, and gives their probabilities by it and by its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from codec.layers.masks import length_mask
from lm.generation.sampling import request_noise
from lm.text_tokenizer import TextTokenizer
from training.lm.prompt_template import Dialogue


class AudioTextModel(Protocol):
    """What a policy needs of an audio LLM (training/codec/audio_llm.py)."""

    branch: nn.Module
    text_model: nn.Module
    tokenizer: TextTokenizer

    def prompts(self, described: Any, pieces: Sequence[tuple[list[int], list[int], list[int]]]) -> list[Tensor]:
        """What precedes each answer: (rows, width) embeddings."""
        ...

    def embed(self, ids: list[int] | Tensor) -> Tensor:
        """Ids (n,) -> the text model's embeddings (n, width)."""
        ...


@dataclass
class PolicyOutput:
    """Probabilities of N answers of at most L tokens."""

    # (N, L) natural logarithms, 0 beyond an answer
    log_probs: Tensor
    # (N, L) the same by the reference; None where it was not asked for
    reference: Tensor | None
    # (N, L) bool: tokens of the answers, EOS included
    mask: Tensor
    # scalar: commitment loss of the branch
    commitment: Tensor


class Policy(nn.Module):
    """An audio LLM as a policy over analyses.

    Trained are the same parts as in supervised training: branch, projection, adapters. The codebooks stay as they are
    and gradients pass straight through them; there is no dropout, or the ratio of two passes would not be that of two
    policies. The reference is the audio LLM as it is when the policy is made: a copy of what is trained, no second text
    model.

    Args:
        audio_llm: whose answers are sampled.
        temperature: of sampling; the probabilities that are compared are at this temperature, too.
    """

    def __init__(self, audio_llm: AudioTextModel, temperature: float) -> None:
        super().__init__()
        self.audio_llm, self.temperature = audio_llm, temperature
        audio_llm.branch.quantiser.straight_through = True
        # Not buffers: every checkpoint would hold what is already in the folder that the run starts from.
        self._reference = {n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad}
        self.train()

    def train(self, mode: bool = True) -> Policy:
        """Never training mode: see above."""
        return super().train(False)

    def forward(
        self,
        speech: Tensor,
        music: Tensor,
        frames: Tensor,
        questions: Sequence[str],
        answers: Sequence[Sequence[int]],
        with_reference: bool = False,
    ) -> PolicyOutput:
        """Log-probabilities of answers to B questions.

        Args:
            speech: (B, C, T50) expert features, as for DescriptiveBranch.
            music: (B, C, T25).
            frames: (B,) 25 Hz frames of each recording.
            questions: about the recordings.
            answers: N = B G lists of text tokens, the first clip's G first.
            with_reference: whether those by the reference are computed too.
        """
        described = self.audio_llm.branch(speech, music, frames)
        prompts = self.audio_llm.prompts(described, _pieces(questions, self.audio_llm.tokenizer))
        prompts = [prompt for prompt in prompts for _ in range(len(answers) // len(prompts))]
        ids = [torch.tensor(answer, device=speech.device) for answer in answers]
        sequences = [torch.cat([p, self.audio_llm.embed(a[:-1])]) for p, a in zip(prompts, ids, strict=True)]
        # Padding on the right needs no mask: attention looks back only.
        text_model = self.audio_llm.text_model.get_base_model()
        states = text_model.base_model(inputs_embeds=pad_sequence(sequences, batch_first=True)).last_hidden_state
        # An answer's first id is predicted at the last position of the prompt.
        predicting = torch.cat(
            [s[len(p) - 1 : len(p) - 1 + len(a)] for s, p, a in zip(states, prompts, ids, strict=True)]
        )
        logits = (
            text_model.get_output_embeddings()(predicting).float() / self.temperature
        )  # the vocabulary at answers only
        chosen = logits.gather(1, torch.cat(ids)[:, None])[:, 0] - logits.logsumexp(1)
        lengths = [len(answer) for answer in ids]
        log_probs = pad_sequence(list(chosen.split(lengths)), batch_first=True)  # (N, L)
        mask = length_mask(torch.tensor(lengths, device=speech.device), max(lengths))
        reference = None
        if with_reference:
            self._reference = {name: tensor.to(speech.device) for name, tensor in self._reference.items()}
            with torch.no_grad():
                out = functional_call(self, self._reference, (speech, music, frames, questions, answers))
            reference = out.log_probs
        return PolicyOutput(log_probs, reference, mask, described.commitment)

    @torch.no_grad()
    def sample(
        self,
        speech: Tensor,
        music: Tensor,
        frames: Tensor,
        questions: Sequence[str],
        seeds: Sequence[int],
        max_new_tokens: int,
    ) -> list[list[int]]:
        """Answers sampled from the policy: text tokens with EOS last, but for those cut off at `max_new_tokens`.

        The tail of the distribution is not cut off (no top-k): the ratio needs the policy as it is.

        Args:
            speech: (B, C, T50) expert features, as for DescriptiveBranch.
            music: (B, C, T25).
            frames: (B,) 25 Hz frames of each recording.
            questions: about the recordings.
            seeds: N = B G, one for each answer, the first clip's G first: an answer depends on its own seed alone,
                whatever else is in the batch.
            max_new_tokens: of each answer.
        """
        described = self.audio_llm.branch(speech, music, frames)
        prompts = self.audio_llm.prompts(described, _pieces(questions, self.audio_llm.tokenizer))
        group, eos = len(seeds) // len(prompts), self.audio_llm.tokenizer.eos
        uniform = request_noise(seeds, max_new_tokens, 1, speech.device)[..., 0].double()  # (N, max_new_tokens)

        # Left padding, so that all answers begin at the same place; each clip is read once for its whole group.
        most, cache = max(len(prompt) for prompt in prompts), DynamicCache()
        rows = torch.stack([nn.functional.pad(p, (0, 0, most - len(p), 0)) for p in prompts])  # (B, most, width)
        mask = torch.tensor([[0] * (most - len(p)) + [1] * len(p) for p in prompts], device=speech.device)
        text_model = self.audio_llm.text_model.get_base_model()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._logits(text_model, rows, mask, positions, cache).repeat_interleave(group, 0)  # (N, ids)
        cache.batch_repeat_interleave(group)
        mask, positions = mask.repeat_interleave(group, 0), positions[:, -1:].repeat_interleave(group, 0)

        sampled = []
        done = torch.zeros(len(seeds), dtype=torch.bool, device=speech.device)
        for position in range(max_new_tokens):
            cumulative = (logits.double() / self.temperature).softmax(1).cumsum(1)  # (N, ids)
            height = uniform[:, position, None] * cumulative[:, -1:]
            ids = torch.searchsorted(cumulative, height, right=True)[:, 0].clamp(max=cumulative.shape[1] - 1)
            sampled.append(ids.masked_fill(done, eos))
            done = done | (ids == eos)
            if done.all() or position == max_new_tokens - 1:
                break
            mask, positions = torch.cat([mask, mask.new_ones(len(seeds), 1)], 1), positions + 1
            logits = self._logits(text_model, self.audio_llm.embed(sampled[-1])[:, None], mask, positions, cache)
        answers = torch.stack(sampled, 1).tolist()
        return [answer[: answer.index(eos) + 1] if eos in answer else answer for answer in answers]

    @staticmethod
    def _logits(model: nn.Module, rows: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """(rows, ids) logits of what comes next."""
        out = model(
            inputs_embeds=rows,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1]


def _pieces(questions: Sequence[str], tokenizer: TextTokenizer) -> list[tuple[list[int], list[int], list[int]]]:
    return [Dialogue(question, "").ids(tokenizer) for question in questions]
