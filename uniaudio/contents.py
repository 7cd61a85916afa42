"""What a person gives for a task, as texts and tokens: their own material, and solved examples."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from auditory_sentences.builders.examples import (
    ANSWER,
    example_parts,
    example_segments,
    require_example,
    with_examples,
)
from auditory_sentences.builders.tasks import VOICE_SECONDS, Request, Task, find_task, in_vocabulary
from auditory_sentences.corpora.examples import read_examples
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.tokens import AudioTokens

if TYPE_CHECKING:
    from uniaudio.model import UniAudio

Recording = str | Path | Tensor | np.ndarray  # a sound file, or a waveform (n,) at the codec's rate
Content = Recording | AudioTokens
# Solved examples of a task: of each the content of every part by name, the answer under "answer" (of several answers a
# list); or the folder, or table, that describes them (auditory_sentences/corpora/examples.py).
Examples = Sequence[Mapping[str, Any]] | str | Path


class Shown(NamedTuple):
    """Examples that were read, as far as the model's context can hold any."""

    # of each; fewer than there are where these alone are too long already
    segments: list[tuple[Segment, ...]]
    # number that was given
    given: int


def read_contents(model: UniAudio, roles: Mapping[str, str], contents: Mapping[str, Content]) -> dict[str, Any]:
    """The contents as texts and tokens.

    Args:
        model: Whose tokens they become.
        roles: Name of a part -> its role; what is not among them is refused later, with all names.
        contents: Texts as they are, audio as a file, a waveform or tokens. Of a voice the first five seconds count.
    """

    def read(name: str, content: Content) -> str | AudioTokens:
        is_text = roles.get(name, "text") in TEXT_ROLES
        if isinstance(content, AudioTokens) or (is_text and isinstance(content, str)):
            return content
        return read_voice(model, content) if name == "voice" else model.read_recording(content)

    return {name: read(name, content) for name, content in contents.items()}


def read_voice(model: UniAudio, audio: Recording) -> AudioTokens:
    """The first seconds of a recording, as an example of its voice."""
    rate = model.codec.sample_rate
    waveform = load_audio(audio, rate) if isinstance(audio, str | Path) else audio
    return model.tokens_of(waveform[: round(VOICE_SECONDS[1] * rate)])


def read_shown(model: UniAudio, name: str, examples: Examples) -> Shown:
    """Solved examples of a task as segments, their texts in the words that the model knows.

    Warns where the model was trained for the task, but never with examples.

    Raises:
        UserError: An example lacks a part or has another, or a file cannot be read; the message names it.
    """
    task = find_task(name)
    if isinstance(examples, str | Path):
        examples = read_examples(examples, task)  # every row is checked before the first file is read
    if not examples:
        return Shown([], 0)
    for number, example in enumerate(examples, 1):
        require_example(task, example, f"example {number}")
    practised = model.tasks_with_examples
    if task.base in model.trained_tasks and task.base not in practised:
        known = f"with those of {', '.join(practised)}" if practised else "with none"
        warnings.warn(f"the model was not trained with examples of {task.base!r}; it was {known}", stacklevel=4)
    segments: list[tuple[Segment, ...]] = []
    rows = 0
    for example in examples:
        if rows > model.context:
            break
        solved = AuditorySentence(example_segments(task, _read_example(model, task, example)), name)
        solved = in_vocabulary(Request(solved, "text"), model.text_tokenizer).sentence
        rows += _rows(model, solved.segments)
        segments.append(solved.segments)
    return Shown(segments, len(examples))


def _read_example(model: UniAudio, task: Task, example: Mapping[str, Any]) -> dict[str, Any]:
    roles = example_parts(task)
    answer = example[ANSWER]
    read = partial(read_contents, model, roles)
    made = read({name: content for name, content in example.items() if name != ANSWER})
    several = isinstance(answer, list | tuple)
    answers = [read({ANSWER: one})[ANSWER] for one in (answer if several else [answer])]
    return {**made, ANSWER: answers}


def request_after(model: UniAudio, asked: Request, shown: Shown) -> Request:
    """The request after its examples.

    Raises:
        UserError: The model's context does not hold all of that, with room for an answer as long as the longest that
            was shown; the message says how many examples would fit.
    """
    if not shown.given:
        return asked
    model.require_room(asked.sentence, asked.role)
    room = model.room_after(asked.sentence)
    given = sum(not part.is_target for part in find_task(asked.sentence.name).parts)  # what comes before the answers
    rows = answer = fit = 0
    for example in shown.segments:
        rows += _rows(model, example)
        answer = max(answer, _rows(model, example[given:]))
        if rows + answer > room:
            break
        fit += 1
    holds = f"the model's context of {model.context} rows holds"
    beside = "beside what is asked and an answer as long as theirs"
    if fit == 0:
        raise UserError(f"no example fits: {holds} not even one {beside}; give shorter ones")
    if fit < shown.given:
        raise UserError(f"{shown.given} examples are too many: {holds} the first {fit} {beside}; give at most {fit}")
    return with_examples(asked, shown.segments)


def _rows(model: UniAudio, segments: tuple[Segment, ...]) -> int:
    return model.context - model.room_after(AuditorySentence(segments))
