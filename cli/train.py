"""`uniaudio train`: the door to the trainers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.options import number_option
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.terminal import say
from training.engine.launch import end_with_launcher, launch


def train(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe: a file, or a shipped one such as starter/stage1 (`uniaudio recipe list`).")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, for example optimiser.lr=1e-4.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the newest complete checkpoint.")] = False,
    resume_from: Annotated[Path | None, typer.Option("--resume-from", help="Resume from this checkpoint.")] = None,
    allow_change: Annotated[
        list[str] | None,
        typer.Option("--allow-change", metavar="KEY", help="Resume although this key of the recipe has changed."),
    ] = None,
    processes: Annotated[
        int, number_option(numbers.Processes, "--processes", help="Processes on this machine that share the work.")
    ] = 1,
) -> None:
    """Train what a recipe describes: text model, codec branch or language-model stage."""
    if processes > 1:
        options = ["--resume"] * resume + (["--resume-from", str(resume_from)] if resume_from else [])
        options += [word for key in allow_change or [] for word in ("--allow-change", key)]
        # -P: the working directory may hold packages of our names.
        command = [sys.executable, "-P", "-m", "cli.main", "train", *options, "--", str(recipe), *(overrides or [])]
        raise typer.Exit(launch(command, processes))
    if "LOCAL_RANK" in os.environ:  # before all else takes its time: the launcher may be killed meanwhile
        end_with_launcher()
    from training.engine.processes import rank
    from training.recipe import train as train_recipe
    from training.resume import Continuation

    resumes = resume or resume_from is not None
    if allow_change and not resumes:
        raise UserError("--allow-change: is for a run that is resumed; give --resume too")
    asked = Continuation(resume_from, tuple(allow_change or ())) if resumes else False
    model = train_recipe(recipe, overrides or [], asked)
    if rank() == 0:
        say(model)
