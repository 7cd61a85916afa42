"""Generation: text and audio, in true batches whose requests end independently."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lm.generation.batch import AudioRun, Reason, TextRun, evaluating
from lm.generation.generative_model import GenerativeModel
from lm.generation.kept_runs import run_of
from lm.generation.settings import GenerationSettings
from lm.generation.static_step import Steps
from lm.rows import Rows, collate, concatenate, text_rows
from lm.vocabulary import VocabularyLayout

T = TypeVar("T")

SCORE_BATCH = 16  # sentences scored at once


@dataclass(frozen=True)
class TextGeneration:
    """Text that was generated."""

    # what was generated, without the closing EOS; may be empty
    ids: list[int]
    # why it ended
    reason: Reason


@dataclass(frozen=True)
class AudioGeneration:
    """Audio that was generated, as codes.

    With reason "end" each stream has at least one frame. Otherwise the last stream, or several, may have none.
    """

    # name of a stream -> its codes, (codebooks, T) int64 on the CPU
    streams: Mapping[str, Tensor]
    # why it ended
    reason: Reason

    def __getitem__(self, stream: str) -> Tensor:
        """The codes of a stream. Raises KeyError where it has no such stream."""
        return self.streams[stream]


def from_frames(layout: VocabularyLayout, frames: Mapping[str, Sequence[list[int]]], reason: Reason) -> AudioGeneration:
    """Audio of frames of codes.

    Args:
        layout: Vocabulary of the model.
        frames: Name of a stream -> its frames, any number; streams without frames may be missing.
        reason: Why the generation ended.
    """
    streams = {}
    for stream in layout.streams:
        codes = torch.tensor(frames.get(stream.name, []), dtype=torch.int64)
        streams[stream.name] = codes.reshape(-1, stream.codebooks).T.contiguous()
    return AudioGeneration(streams, reason)


@dataclass(frozen=True)
class StreamedFrame:
    """One frame of audio as it comes."""

    # index of its request
    request: int
    # name of its stream
    stream: str
    # one for each codebook
    codes: list[int]


def generate_text(
    model: GenerativeModel,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    steps: Steps | None = None,
) -> list[TextGeneration]:
    """Continue each prompt with text up to the text EOS. `settings.guidance` plays no part.

    Request i depends on its prompt and on seeds[i] alone, not on its neighbours. A prompt that leaves no room in the
    model's context gets nothing, for the reason "context".

    Args:
        model: The language model.
        prompts: One of each request.
        settings: How to generate.
        seeds: One of each request.
        steps: As in `generate_audio`.

    Raises:
        ValueError: For an empty prompt, or where there are not as many seeds as prompts.
    """
    _check_lengths(prompts, seeds)
    results = [TextGeneration([], "context")] * len(prompts)
    fitting = _fitting(model, prompts)
    if not fitting:
        return results
    with run_of(TextRun, model, _at(fitting, prompts), settings, _at(fitting, seeds), steps=steps) as run:
        for _ in run.steps():
            pass
        for request, (ids, reason) in zip(fitting, run.results(), strict=True):
            results[request] = TextGeneration(ids.tolist()[: len(ids) - (reason == "end")], reason)
    return results


def generate_audio(
    model: GenerativeModel,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
    steps: Steps | None = None,
) -> list[AudioGeneration]:
    """Continue each prompt with the audio of one clip: the frames of each stream in turn.

    Request i depends on its prompts and on seeds[i] alone, not on its neighbours. A prompt that leaves no room in the
    model's context gets nothing, for the reason "context".

    Args:
        model: The language model.
        prompts: One of each request.
        settings: How to generate.
        seeds: One of each request.
        negatives: The unguided prompts, needed where `settings.guided`; both halves run as one batch.
        steps: How the steps run: "plain"; "graph", captured once, replayed and kept for later calls; "compiled" by
            torch, which takes minutes in the first call for a batch size, a range of lengths and a kind of settings.
            None: "graph" on a GPU, "plain" elsewhere. The ids are the same, but for rounding.

    Raises:
        ValueError: For an empty prompt, guidance without negatives, or where there are not as many seeds or negatives
            as prompts.
    """
    negatives = _checked_negatives(prompts, settings, seeds, negatives)
    layout = model.config.layout
    results = [from_frames(layout, {}, "context") for _ in prompts]
    fitting = _fitting(model, prompts, negatives, opening=True)
    if not fitting:
        return results
    asked, their_seeds, hidden = _at(fitting, prompts), _at(fitting, seeds), _at(fitting, negatives)
    with run_of(AudioRun, model, asked, settings, their_seeds, hidden, steps) as run:
        for _ in run.steps():
            pass
        for request, (frames, reason) in zip(fitting, run.results(), strict=True):
            parts: dict[str, list[list[int]]] = {stream.name: [] for stream in layout.streams}
            for row in map(layout.parse, frames.tolist()):
                if row.place == "frame":
                    parts[layout.streams[row.stream].name].append(row.codes)
            results[request] = from_frames(layout, parts, reason)
    return results


def stream_audio(
    model: GenerativeModel,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
    steps: Steps | None = None,
) -> Generator[StreamedFrame, None, list[Reason]]:
    """Like `generate_audio`, but yields every frame as soon as it is known. The same ids come out.

    Args:
        model, prompts, settings, seeds, negatives, steps: As in `generate_audio`.

    Returns:
        Why each request stopped, as a generator returns.

    Raises:
        ValueError: As in `generate_audio`, when the first frame is asked for.
    """
    negatives = _checked_negatives(prompts, settings, seeds, negatives)
    fitting = _fitting(model, prompts, negatives, opening=True)
    reasons: list[Reason] = ["context"] * len(prompts)
    if not fitting:
        return reasons
    layout, seen = model.config.layout, [0] * len(fitting)
    asked, their_seeds, hidden = _at(fitting, prompts), _at(fitting, seeds), _at(fitting, negatives)
    with run_of(AudioRun, model, asked, settings, their_seeds, hidden, steps) as run:
        for _ in run.steps():
            for place, rows in enumerate(run.batch.rows[: len(fitting)].tolist()):
                for row in map(layout.parse, run.written[place, seen[place] : rows].tolist()):
                    if row.place == "frame":
                        yield StreamedFrame(fitting[place], layout.streams[row.stream].name, row.codes)
                seen[place] = rows
        for request, reason in zip(fitting, run.batch.reasons(), strict=True):
            reasons[request] = reason
    return reasons


@torch.inference_mode()
def score_text(model: GenerativeModel, prompts: Sequence[Rows], continuations: Sequence[Sequence[int]]) -> list[float]:
    """Log-likelihood of each continuation after its prompt: sum over its ids, natural logarithm.

    Args:
        model: The language model.
        prompts: What comes before each continuation.
        continuations: Text ids.

    Raises:
        ValueError: For an empty prompt or continuation, where both together exceed the model's context, or where there
            are not as many of the one as of the other.
    """
    _check_lengths(prompts, continuations)
    context = model.config.cross_modal.max_position_embeddings
    for prompt, ids in zip(prompts, continuations, strict=True):
        if len(prompt) == 0 or len(ids) == 0:
            raise ValueError("scoring needs at least one prompt row and one id to score")
        if len(prompt) + len(ids) > context:
            raise ValueError(
                f"the prompt has {len(prompt)} rows and the continuation {len(ids)}, "
                f"but the model's context holds {context}"
            )
    scores = []
    with evaluating(model):
        for start in range(0, len(prompts), SCORE_BATCH):
            pairs = list(zip(prompts, continuations, strict=True))[start : start + SCORE_BATCH]
            layout = model.config.layout
            sentences = [concatenate([prompt, text_rows(ids, layout, is_target=True)]) for prompt, ids in pairs]
            rows = collate(sentences, layout)
            row_ids, mask = rows.ids.to(model.device), rows.mask.to(model.device)
            final = model.last_hidden_state(row_ids[:, :-1], mask[:, :-1])
            for i, (prompt, continuation) in enumerate(pairs):
                asked = slice(len(prompt) - 1, len(prompt) + len(continuation) - 1)
                log_probs = model.lm_head(final[i, asked]).float().log_softmax(-1)
                targets = row_ids[i, 1:, -1][asked, None]
                scores.append(log_probs.gather(1, targets).sum().item())
    return scores


def _fitting(
    model: GenerativeModel,
    prompts: Sequence[Rows],
    negatives: Sequence[Rows] = (),
    opening: bool = False,
) -> list[int]:
    """Requests whose prompts, with an opening row or without, leave room for a row.

    Raises:
        ValueError: For an empty prompt.
    """
    if not all(map(len, (*prompts, *negatives))):
        raise ValueError("a prompt needs at least one row")
    room = model.config.cross_modal.max_position_embeddings - opening
    both = [prompts, negatives] if negatives else [prompts]
    return [i for i in range(len(prompts)) if all(len(rows[i]) < room for rows in both)]


def _at(places: Sequence[int], values: Sequence[T]) -> list[T]:
    return [values[i] for i in places] if values else []


def _checked_negatives(
    prompts: Sequence[Rows], settings: GenerationSettings, seeds: Sequence[int], negatives: Sequence[Rows] | None
) -> Sequence[Rows]:
    """The negative prompts where guidance needs them, else none. Raises ValueError where there are not as many."""
    _check_lengths(prompts, seeds)
    if not settings.guided:
        return ()
    if negatives is None:
        scale = next(s for s in (settings.guidance, *settings.stream_guidance.values()) if s != 1)
        raise ValueError(f"guidance {scale} needs a negative prompt for every prompt")
    _check_lengths(prompts, negatives)
    return negatives


def _check_lengths(prompts: Sequence[Any], others: Sequence[Any]) -> None:
    if len(prompts) != len(others):
        raise ValueError(f"{len(prompts)} prompts, but {len(others)} seeds, negatives or continuations")
