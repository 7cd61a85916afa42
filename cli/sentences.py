"""`uniaudio corpus sentences`: what a language-model recipe makes of its clips, to read and to hear."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import ForceOption, number_option
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.terminal import one_line, say

if TYPE_CHECKING:
    from auditory_sentences.stream.examples import Entry, Example
    from training.lm.sentences import Drawn

_WIDTH = 88  # characters of a segment's text in the terminal; the page has all of it


def sentences(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe of a language model: a file, or a shipped one such as starter/stage4.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, for example store=runs/mine/tokens init=starter/model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write a page, PAGE.html, that plays them.")
    ] = None,
    count: Annotated[int, number_option(numbers.Count, "--count", help="Sentences of each entry.")] = 10,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="This entry of the mixture alone; may be repeated."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Of the store: train, dev or test.")] = "train",
    corpus: Annotated[
        list[Path] | None,
        typer.Option(
            "--corpus", help="Where the recordings lie now; may be repeated. Without, where the store has them."
        ),
    ] = None,
    decoded: Annotated[
        bool, typer.Option("--decoded", help="Play what the tokens hold, all that the model is given, not recordings.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Show the auditory sentences of a recipe's mixture, as training draws them from its first step on."""
    from auditory_sentences.corpora.clip import SPLITS
    from codec.io.files import require_free
    from training.lm.sentences import draw
    from training.recipe import kind_of, load_recipe

    if split not in SPLITS:
        raise UserError(f"--split: must be one of {', '.join(SPLITS)}, not {one_line(split)}")
    if out is None and (corpus or decoded):
        raise UserError("--corpus and --decoded are for a page, which --out names; give it too")
    if out is not None:
        if out.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"{out}: the page is written as .html; choose a name that ends so")
        require_free(out, force=force)
    read = load_recipe(recipe, overrides or [])
    if kind_of(read) != "language_model":
        raise UserError(
            f"{recipe}: a recipe of kind {kind_of(read)} draws no auditory sentences; give one of kind language_model, "
            "such as starter/stage4"
        )
    drawn = draw(read, count, only or (), split)
    for line in _lines(drawn):
        say(line)
    if out is not None:
        _write(drawn, str(recipe), out, corpus or [], decoded, force)
        say(f"page\t{one_line(out)}\t{out.stat().st_size / 1e6:.1f} MB")


def _facts(drawn: Drawn) -> dict[str, str]:
    """What the sentences were drawn with."""
    recipe, loss = drawn.recipe, drawn.loss
    return {
        "Store": drawn.data.store.name,
        "Split": drawn.split,
        "Seed": str(recipe.seed),
        "Context": f"{recipe.context} rows",
        "Loss": f"{loss.text:g} × text + {loss.audio:g} × audio",
    }


def _lines(drawn: Drawn) -> Iterator[str]:
    """All that is printed."""
    yield one_line("; ".join(f"{key.lower()} {value}" for key, value in _facts(drawn).items()))
    for change in drawn.changes:
        yield one_line(f"changed for the store: {change}")
    for entry in drawn.entries:
        yield ""
        yield from _of_entry(drawn, entry)


def _of_entry(drawn: Drawn, entry: Entry) -> Iterator[str]:
    from evaluation.report.sentences import headline, percent

    heading = f"{entry.name}: weight {entry.weight:g}"
    if not entry.reason:
        rows = "" if entry.share_of_rows is None else f", about {percent(entry.share_of_rows)} of the rows"
        heading += f", {percent(entry.share)} of the sentences{rows}; {entry.anchors} anchors"
    yield one_line(heading)
    yield f"  {entry.about}"
    if entry.reason:
        yield one_line(f"  no sentence: {entry.reason}")
    for number, example in enumerate(entry.examples, 1):
        yield f"  {number}. {headline(example, drawn.recipe.context)}"
        yield from _segments(drawn, example)


def _segments(drawn: Drawn, example: Example) -> Iterator[str]:
    marks = example.marks(drawn.loss)
    for segment, origin, rows, mark in zip(example.segments, example.origins, example.rows, marks, strict=True):
        if segment.is_text:
            content = textwrap.shorten(segment.text, _WIDTH, placeholder=" ...")
        else:
            content = f"[{drawn.store.described(segment, origin)}]"
        yield one_line(f"     {mark:8s}{segment.role:14s}{rows:5d} rows  {content}")


def _write(drawn: Drawn, title: str, out: Path, corpora: list[Path], decoded: bool, force: bool) -> None:
    """The page."""
    from codec.io.files import new_file
    from evaluation.recordings import Relocated
    from evaluation.report.sentences import SegmentSounds, sentences_page

    paths = {clip.id: clip.path for clip in Relocated(drawn.data.store, corpora).clips} if corpora else {}
    sounds = SegmentSounds(drawn.store, drawn.data.load_codec, paths, decoded)
    page = sentences_page(title, _facts(drawn), drawn.changes, drawn.entries, drawn.recipe.context, drawn.loss, sounds)
    with new_file(out, force=force) as temporary:
        temporary.write_text(page, encoding="utf-8")
