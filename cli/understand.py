"""Verbs that hear: `uniaudio transcribe` and `uniaudio describe`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEMO_MODEL, ModelOption, PromptOption, load_model, number_option
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.terminal import complain, one_line, say, sentence_of

if TYPE_CHECKING:
    from auditory_sentences.builders.tasks import Request
    from lm.generation.sampling import GenerationSettings
    from uniaudio.model import Completion, UniAudio

BATCH = 16  # files that are read and answered at once

FilesArgument = Annotated[list[Path], typer.Argument(help="Sound files: WAV, FLAC, OGG, MP3; any rate, any channels.")]
MaxRowsOption = Annotated[int, number_option(numbers.Count, "--max-rows", help="Longest answer, in rows (text ids).")]


def transcribe(
    files: FilesArgument,
    model: ModelOption = DEMO_MODEL,
    max_rows: MaxRowsOption = 300,
    prompt: PromptOption = None,
) -> None:
    """Write down what is said: one line per file."""
    _answer_about(files, "asr", model, max_rows, prompt)


def describe(
    files: FilesArgument,
    model: ModelOption = DEMO_MODEL,
    music: Annotated[bool, typer.Option("--music", help="Describe the music rather than the sound.")] = False,
    max_rows: MaxRowsOption = 300,
    prompt: PromptOption = None,
) -> None:
    """Say what is heard: one line per file."""
    _answer_about(files, "music_caption" if music else "sound_caption", model, max_rows, prompt)


def _answer_about(files: list[Path], task: str, model_folder: Path, max_rows: int, prompt: str | None) -> None:
    """Do a task that takes one sound and answers in text, for every file that can be read, in batches."""
    model = load_model(model_folder)
    from cli.hearing import SILENCE
    from lm.generation.generate import GenerationSettings

    settings = GenerationSettings(max_rows=max_rows, top_k=1)
    failed = False
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        answers = _answers(model, some, task, prompt, settings)
        for file, answer in zip(some, answers, strict=True):
            if isinstance(answer, UserError):
                failed = True
                complain(answer)
                continue
            silent = answer.segment is None
            said = "" if silent else " ".join(answer.segment.content.split())
            say(f"{one_line(file)}\t{said}" if len(files) > 1 else said)
            if silent:
                complain(f"{file}: is silent (nothing above {SILENCE:.0f} dB), so nothing is said")
            elif answer.reason != "end":
                complain(f"{file}: the answer is not complete ({answer.reason}); raise --max-rows to let it go on")
    if failed:
        raise typer.Exit(2)


def _answers(
    model: UniAudio, files: Sequence[Path], task: str, prompt: str | None, settings: GenerationSettings
) -> list[Completion | UserError]:
    """Of each file what the model says (no segment where the file is silent), or why it cannot be answered."""
    from cli.hearing import hear, is_silent
    from uniaudio.model import Completion

    answers: list[Completion | UserError | None] = []
    requests = []
    for file in files:
        try:
            if is_silent(file):
                answers.append(Completion(None, "end"))
                continue
            asked = model.request(task, prompt, audio=hear(model, file))
            _require_room(model, asked, file)
        except (UserError, OSError) as error:
            answers.append(sentence_of(error))
        else:
            answers.append(None)
            requests.append(asked)
    if requests:
        sentences = [asked.sentence for asked in requests]
        made = iter(model.complete(sentences, requests[0].role, settings, [0] * len(requests)))
        answers = [next(made) if answer is None else answer for answer in answers]
    return answers


def _require_room(model: UniAudio, asked: Request, file: Path) -> None:
    try:
        model.require_room(asked.sentence, asked.role)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
