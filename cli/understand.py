"""Verbs that answer in text: `uniaudio transcribe` and `uniaudio describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ExamplesOption, ModelOption, PromptOption, load_model, number_option, read_examples
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import complain, one_line, say
from uniaudio.requests import MAX_TEXT_ROWS, description_task

BATCH = 16  # files that are read and answered at once

FilesArgument = Annotated[list[Path], typer.Argument(help="Sound files: WAV, FLAC, OGG, MP3; any rate, any channels.")]
MaxRowsOption = Annotated[int, number_option(numbers.Count, "--max-rows", help="Longest answer, in rows (text ids).")]


def transcribe(
    files: FilesArgument,
    model: ModelOption = Path(STARTER_MODEL),
    max_rows: MaxRowsOption = MAX_TEXT_ROWS,
    prompt: PromptOption = None,
    examples: ExamplesOption = None,
) -> None:
    """Write down what is said: one line per file."""
    _answer_about(files, "asr", model, max_rows, prompt, examples)


def describe(
    files: FilesArgument,
    model: ModelOption = Path(STARTER_MODEL),
    music: Annotated[bool, typer.Option("--music", help="Describe the music rather than the sound.")] = False,
    max_rows: MaxRowsOption = MAX_TEXT_ROWS,
    prompt: PromptOption = None,
    examples: ExamplesOption = None,
) -> None:
    """Describe what is heard: one line per file."""
    _answer_about(files, description_task(music), model, max_rows, prompt, examples)


def _answer_about(
    files: list[Path], task: str, source: Path, max_rows: int, prompt: str | None, examples: Path | None
) -> None:
    """Print an answer for every file that can be read, in batches."""
    solved = read_examples(examples, task)
    model = load_model(source)
    from uniaudio.recordings import SILENCE

    failed = False
    for start in range(0, len(files), BATCH):
        some = files[start : start + BATCH]
        for file, answer in zip(some, model.answers_about(some, task, prompt, max_rows, solved), strict=True):
            if isinstance(answer, UserError):
                failed = True
                complain(answer)
                continue
            say(f"{one_line(file)}\t{answer.line}" if len(files) > 1 else answer.line)
            if answer.segment is None:
                complain(f"{file}: is silent (nothing above {SILENCE:.0f} dB), so nothing is said")
            elif answer.reason != "end":
                complain(f"{file}: the answer is not complete ({answer.reason}); raise --max-rows for a longer one")
    if failed:
        raise typer.Exit(2)
