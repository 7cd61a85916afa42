"""Verbs that hear: `uniaudio transcribe` and `uniaudio describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEMO_MODEL, ModelOption, PromptOption, load_model

FilesArgument = Annotated[list[Path], typer.Argument(help="Sound files: WAV, FLAC, OGG, MP3; any rate, any channels.")]
MaxRowsOption = Annotated[int, typer.Option("--max-rows", min=1, help="Longest answer, in rows (text ids).")]


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
    """Do a task that takes one sound and answers in text, for all files in one batch."""
    model = load_model(model_folder)
    from lm.generation import GenerationSettings

    requests = [model.request(task, prompt, audio=model.tokens_of(file)) for file in files]
    settings = GenerationSettings(max_rows=max_rows, top_k=1)
    answers = model.complete([r.sentence for r in requests], requests[0].role, settings, [0] * len(requests))
    for file, answer in zip(files, answers, strict=True):
        said = answer.segment.content if answer.segment is not None else ""
        print(f"{file}\t{said}" if len(files) > 1 else said)
        if answer.reason != "end":
            typer.echo(
                f"{file}: the answer is not complete ({answer.reason}); raise --max-rows to let it go on", err=True
            )
