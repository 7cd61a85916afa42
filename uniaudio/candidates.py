"""Several sounds for one request, and the one that the model itself understands best.

A model that recognises speech and describes sounds can check what it made. Each candidate is decoded and encoded again,
as if it had been recorded, and read back: how likely the words that were asked for are in recognition, and the caption
in captioning, chooses. DALL-E chooses so among its images (Ramesh et al. 2021, §2.6), there by another model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from auditory_sentences.builders.tasks import TASKS, Request, Task, reading_tasks
from auditory_sentences.sentence import AuditorySentence, TextRole, with_generation_prompt
from codec.io.errors import UserError
from codec.io.numbers import LARGEST
from codec.tokens import AudioTokens
from uniaudio.completion import Completion

if TYPE_CHECKING:
    from lm.generation.settings import GenerationSettings
    from uniaudio.model import UniAudio


def best_candidates(
    model: UniAudio, sentences: Sequence[AuditorySentence], settings: GenerationSettings, seeds: Sequence[int]
) -> list[Completion]:
    """Continue each sentence with the best of several sounds.

    Candidate k of a sentence is what its seed plus k gives alone. One that ended by itself goes before one that was cut
    off; among equals the first is kept.

    Args:
        sentences: To continue, each named after its task.
        settings: How to generate; `candidates` of each.
        seeds: One per sentence.

    Raises:
        UserError: The model has no task that reads back what a sentence tells; or as `UniAudio.complete`.
    """
    readers = [_readers(model, sentence) for sentence in sentences]
    count = settings.candidates
    repeated = [sentence for sentence in sentences for _ in range(count)]
    each = [(seed + k) % (LARGEST + 1) for seed in seeds for k in range(count)]
    made = model.complete(repeated, "audio", replace(settings, candidates=1), each)
    sounding = [i for i, completion in enumerate(made) if completion.segment is not None]
    waveforms = model.waveforms([made[i].tokens for i in sounding], seeds=[each[i] for i in sounding])
    heard = {i: model.tokens_of(waveform) for i, waveform in zip(sounding, waveforms, strict=True)}
    scores = [-math.inf] * len(made)
    for i, score in zip(heard, _read_back(model, [(heard[i], readers[i // count]) for i in heard]), strict=True):
        scores[i] = score
    chosen = (
        max(range(start, start + count), key=lambda i: (made[i].reason == "end", scores[i]))
        for start in range(0, len(made), count)
    )
    return [made[i] for i in chosen]


def _readers(model: UniAudio, sentence: AuditorySentence) -> list[tuple[Task, str]]:
    """The tasks that read back what a sentence tells, and what they should answer."""
    task = _task_of(sentence)
    trained = model.trained_tasks
    found = []
    for reader, part in reading_tasks(task) if task else ():
        told = [segment.content for segment in sentence.segments if segment.role == part.role]
        if told and (not trained or reader.name in trained):
            found.append((reader, str(told[-1])))  # of several, those before belong to examples or to earlier turns
    if not found:
        raise UserError(
            f"{sentence.name or 'this request'}: the model cannot choose among candidates, for it has no task that "
            "reads back what is asked; leave candidates at 1"
        )
    return found


def _task_of(sentence: AuditorySentence) -> Task | None:
    """The task that a sentence is named after: "tts", "tts:clip" or "few_shot:tts:4:clip"."""
    names = sentence.name.split(":")
    return next((TASKS[name] for name in names[:2] if name in TASKS), None)


def _read_back(model: UniAudio, heard: Sequence[tuple[AudioTokens, Sequence[tuple[Task, str]]]]) -> list[float]:
    """Of each sound the log probability, in nats, that its readers answer what they should, all together."""
    asked: dict[str, list[tuple[int, Request, str]]] = {}  # role of the answer -> of which sound, request, answer
    scores = [0.0] * len(heard)
    for i, (tokens, readers) in enumerate(heard):
        for task, answer in readers:
            request = model.request(task.name, audio=tokens)
            opened = with_generation_prompt(request.sentence, request.role, model.layout, model.text_tokenizer)
            if len(opened) + len(model.text_tokenizer.encode(answer)) + 1 > model.context:
                scores[i] = -math.inf  # too long to be heard at all
            else:
                asked.setdefault(request.role, []).append((i, request, answer))
    for role, entries in asked.items():
        requests, answers = [request.sentence for _, request, _ in entries], [[answer] for *_, answer in entries]
        found = model.choose(requests, cast(TextRole, role), answers)
        for (i, _, _), (score,) in zip(entries, found, strict=True):
            scores[i] += score
    return scores
