"""`uniaudio train`: the door to the trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, for example recipes/starter/stage1.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, for example optimiser.lr=1e-4.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    resume_from: Annotated[Path | None, typer.Option("--resume-from", help="Go on from this checkpoint.")] = None,
) -> None:
    """Train what a recipe describes: text model, codec branch or language-model stage."""
    from training import processes
    from training.recipe import train as train_recipe

    model = train_recipe(recipe, overrides or [], resume_from or resume)
    if processes.rank() == 0:
        print(model)
