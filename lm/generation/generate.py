"""Generation: text and audio, in true batches whose requests end independently."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor

from codec.tokens import NUM_CODEBOOKS
from lm.generation.batch import AudioRun, Reason, TextRun, evaluating
from lm.generation.grammar import DESCRIPTIVE, FrameReader
from lm.generation.sampling import GenerationSettings
from lm.rows import TEXT_COLUMN, Rows, collate, concatenate, text_rows

if TYPE_CHECKING:  # the model's own `generate` calls this module
    from lm.model import UniAudioForConditionalGeneration

SCORE_BATCH = 16  # sentences scored at once


@dataclass(frozen=True)
class TextGeneration:
    """ids: what was generated, without the closing EOS; may be empty."""

    ids: list[int]
    reason: Reason


@dataclass(frozen=True)
class AudioGeneration:
    """descriptive (8, T5) and structural (8, T12) codes, int64, on the CPU.

    With reason "end" each has at least one frame. Otherwise the structural part, or both, may have none.
    """

    descriptive: Tensor
    structural: Tensor
    reason: Reason

    @classmethod
    def from_frames(cls, descriptive: Sequence[list[int]], structural: Sequence[list[int]], reason: Reason) -> Self:
        """From frames of eight codes each, any number of either kind."""
        parts = (descriptive, structural)
        codes = [torch.tensor(part, dtype=torch.int64).reshape(-1, NUM_CODEBOOKS).T.contiguous() for part in parts]
        return cls(*codes, reason)


@dataclass(frozen=True)
class StreamedFrame:
    """One frame of audio as it comes: index of its request, kind, and eight codes."""

    request: int
    kind: Literal["descriptive", "structural"]
    codes: list[int]


def generate_text(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    compiled: bool = False,
) -> list[TextGeneration]:
    """Continue each prompt with text up to the text EOS. `settings.guidance` plays no part.

    compiled: as in `generate_audio`.
    Request i depends on its prompt and on seeds[i] alone, not on its neighbours. A prompt that leaves no room in the
    model's context gets nothing, for the reason "context". Raises ValueError for an empty prompt.
    """
    _check_lengths(prompts, seeds)
    results = [TextGeneration([], "context")] * len(prompts)
    fitting = _fitting(model, prompts)
    if not fitting:
        return results
    run = TextRun(model, _at(fitting, prompts), settings, _at(fitting, seeds), compiled)
    for _ in run.steps():
        pass
    texts = zip(fitting, run.written.tolist(), run.batch.rows.tolist(), run.batch.reasons(), strict=True)
    for request, ids, rows, reason in texts:
        results[request] = TextGeneration(ids[: rows - (reason == "end")], reason)
    return results


def generate_audio(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
    structured: bool = True,
    compiled: bool = False,
) -> list[AudioGeneration]:
    """Continue each prompt with the audio of one clip: descriptive frames, then structural frames.

    negatives: the unguided prompts, needed where `settings.guidance` is not 1; both halves run as one batch.
    structured: False samples exactly as the published code does, ids that the codec cannot read included
        (`lm.audio_grammar.AudioGrammar` says what the difference is).
    compiled: run every step as one unit compiled by torch (`lm.compiled_step`), the depth decoder's loop included. The
        first call for a batch size, a range of lengths and a kind of settings takes minutes.
    Request i depends on its prompts and on seeds[i] alone, not on its neighbours. A prompt that leaves no room in the
    model's context gets nothing, for the reason "context".
    Raises ValueError for an empty prompt, or guidance without negatives.
    """
    negatives = _checked_negatives(prompts, settings, seeds, negatives)
    results = [AudioGeneration.from_frames([], [], "context") for _ in prompts]
    fitting = _fitting(model, prompts, negatives, structured)
    if not fitting:
        return results
    run = AudioRun(
        model,
        _at(fitting, prompts),
        settings,
        _at(fitting, seeds),
        _at(fitting, negatives),
        structured,
        compiled,
    )
    for _ in run.steps():
        pass
    made = zip(fitting, run.written.tolist(), run.batch.rows.tolist(), run.batch.reasons(), strict=True)
    for request, frames, rows, reason in made:
        reader, parts = FrameReader(model.config.layout), ([], [])
        for frame in filter(None, map(reader.read, frames[:rows])):
            parts[frame[0]].append(frame[1])
        results[request] = AudioGeneration.from_frames(*parts, reason)
    return results


def stream_audio(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] | None = None,
) -> Generator[StreamedFrame, None, list[Reason]]:
    """Like `generate_audio`, but yields every frame as soon as it is known. The same ids come out.

    Returns why each request stopped, as a generator returns.
    """
    negatives = _checked_negatives(prompts, settings, seeds, negatives)
    fitting = _fitting(model, prompts, negatives, True)
    reasons: list[Reason] = ["context"] * len(prompts)
    if not fitting:
        return reasons
    run = AudioRun(
        model, _at(fitting, prompts), settings, _at(fitting, seeds), _at(fitting, negatives), structured=True
    )
    readers = [FrameReader(model.config.layout) for _ in fitting]
    seen = [0] * len(fitting)
    for _ in run.steps():
        for place, rows in enumerate(run.batch.rows.tolist()):
            for row in run.written[place, seen[place] : rows].tolist():
                frame = readers[place].read(row)
                if frame is not None:
                    kind = "descriptive" if frame[0] == DESCRIPTIVE else "structural"
                    yield StreamedFrame(fitting[place], kind, frame[1])
            seen[place] = rows
    for request, reason in zip(fitting, run.batch.reasons(), strict=True):
        reasons[request] = reason
    return reasons


@torch.inference_mode()
def score_text(
    model: UniAudioForConditionalGeneration, prompts: Sequence[Rows], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Log-likelihood of each continuation (text ids) after its prompt: sum over its ids, natural logarithm.

    Raises ValueError for an empty prompt or continuation, or where both together exceed the model's context.
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
            sentences = [concatenate([prompt, text_rows(ids, is_target=True)]) for prompt, ids in pairs]
            rows = collate(sentences, model.config.layout)
            ids, mask = rows.ids.to(model.device), rows.mask.to(model.device)
            final = model.last_hidden_state(ids[:, :-1], mask[:, :-1])
            for i, (prompt, continuation) in enumerate(pairs):
                asked = slice(len(prompt) - 1, len(prompt) + len(continuation) - 1)
                log_probs = model.lm_head(final[i, asked]).float().log_softmax(-1)
                targets = ids[i, 1:, TEXT_COLUMN][asked, None]
                scores.append(log_probs.gather(1, targets).sum().item())
    return scores


def _fitting(
    model: UniAudioForConditionalGeneration,
    prompts: Sequence[Rows],
    negatives: Sequence[Rows] = (),
    opening: bool = False,
) -> list[int]:
    """Requests whose prompts, with an opening row or without, leave room for a row.

    Raises ValueError for an empty prompt.
    """
    if not all(map(len, (*prompts, *negatives))):
        raise ValueError("a prompt needs at least one row")
    room = model.config.cross_modal.max_position_embeddings - opening
    both = [prompts, negatives] if negatives else [prompts]
    return [i for i in range(len(prompts)) if all(len(rows[i]) < room for rows in both)]


def _at(places: Sequence[int], values: Sequence) -> list:
    return [values[i] for i in places] if values else []


def _checked_negatives(
    prompts: Sequence[Rows], settings: GenerationSettings, seeds: Sequence[int], negatives: Sequence[Rows] | None
) -> Sequence[Rows]:
    """The negative prompts where guidance needs them, else none. Raises ValueError where there are not as many."""
    _check_lengths(prompts, seeds)
    if not settings.guided:
        return ()
    if negatives is None:
        scale = settings.guidance if settings.guidance != 1 else settings.structural_guidance
        raise ValueError(f"guidance {scale} needs a negative prompt for every prompt")
    _check_lengths(prompts, negatives)
    return negatives


def _check_lengths(prompts: Sequence, others: Sequence) -> None:
    if len(prompts) != len(others):
        raise ValueError(f"{len(prompts)} prompts, but {len(others)} seeds, negatives or continuations")
