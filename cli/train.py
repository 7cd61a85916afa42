"""`uniaudio train` and `uniaudio evaluate`: doors to the trainers and to the suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEMO_MODEL, number_option
from codec import numbers


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


def evaluate(
    model: Annotated[
        Path | None,
        typer.Option("--model", envvar="UNIAUDIO_MODEL", help=f"Model folder, or hub id. [default: {DEMO_MODEL}]"),
    ] = None,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="starter (if not given), few_shot, codec, ...")
    ] = None,
    shots: Annotated[
        list[int] | None, number_option(numbers.Index, "--shots", help="Solved examples; all that the tasks list.")
    ] = None,
    limit: Annotated[int, number_option(numbers.Count, "--limit", help="Items per task.")] = 40,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("runs/evaluation"),
    store: Annotated[
        list[Path] | None,
        typer.Option("--store", help="Token store, may be repeated; the one that the model was trained on."),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="Recordings: of a codec alone, or where they moved."),
    ] = None,
    codec: Annotated[
        Path | None, typer.Option("--codec", help="Codec to evaluate; without --model, the suites of a codec alone.")
    ] = None,
) -> None:
    """Run evaluation suites: scores beside chance and the untrained model, and a report."""
    from evaluation.run_suite import run

    model = model or (None if codec else DEMO_MODEL)
    run(
        model=str(model) if model else None,
        suite=suite or ["starter"],
        shots=shots,
        limit=limit,
        out=out,
        store=store or None,
        corpora=corpus or (),
        codec=codec,
    )
