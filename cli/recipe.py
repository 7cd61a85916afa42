"""`uniaudio recipe`: what recipes there are, what may stand in one, and whether one is right."""

from __future__ import annotations

import importlib
import itertools
import os
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from codec.io.terminal import one_line, say

app = typer.Typer(help="List the shipped recipes, show what may stand in one, check one.", no_args_is_help=True)


@app.command(name="list")
def list_recipes() -> None:
    """List the shipped recipes: name, kind, and what it is."""
    from codec.io.reading import read_text, read_yaml
    from codec.io.shipped import shipped, shipped_names

    names = shipped_names("recipes")
    width = max(map(len, names), default=0) + 2
    for name in names:
        path = shipped("recipes", name)
        say(f"{name:{width}s}{read_yaml(path)['kind']:16s}{_first_sentence(read_text(path))}")


@app.command()
def show(kind: Annotated[str, typer.Argument(help="Kind of recipe, as its key `kind` says, such as language_model.")]):
    """Show every key of a kind of recipe: its default (none: it must be given), its type, and what it is."""
    from codec.field_help import keys_of
    from training.recipe import recipe_class

    for key in keys_of(recipe_class(kind)):
        default = f" = {key.default}" if key.default else ""
        say(one_line(f"{key.name}{default}  ({key.kind})  {key.help}".rstrip()))


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="Recipe: a file, or a shipped one.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes, for example optimiser.lr=1e-4.")] = None,
) -> None:
    """Read a recipe as strictly as `train` does, and say what that would do; nothing is trained or written."""
    from training.recipe import kind_of, load_recipe

    read, changes = load_recipe(recipe, overrides or []), ()
    if kind_of(read) == "language_model" and all(os.path.isdir(place) for place in read.read_under("store")):
        from training.lm.another_codec import fit_to_store

        read, changes = fit_to_store(read)
    module = importlib.import_module(type(read).__module__)
    say(f"{one_line(recipe)}: {read.steps} steps of kind {kind_of(read)} into {one_line(read.out)}")
    say(f"  {(type(read).__doc__ or module.__doc__).partition(chr(10))[0]}")
    for key in dict.fromkeys((*read.READS, *(("store",) if hasattr(read, "store") else ()))):
        for place in read.read_under(key):
            say(f"  {key}: {one_line(place)} ({_where(place)})")
    for change in changes:
        say(f"  changed for the store: {one_line(change)}")


def _first_sentence(recipe: str) -> str:
    """Of the comment that a recipe begins with."""
    comment = itertools.takewhile(lambda line: line.startswith("#"), recipe.splitlines())
    text = " ".join(line.lstrip("# ") for line in comment)
    return textwrap.shorten(text.partition(". ")[0], 110, placeholder=" ...")


def _where(place: str) -> str:
    """Where something that a recipe names is found."""
    from codec.io.hub import is_hub_id
    from codec.io.shipped import located

    path = located(place)
    if path.exists():
        return "shipped" if path != Path(place) else "found"
    return "not here; the hub is asked for it" if is_hub_id(place) else "missing"
