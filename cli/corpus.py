"""`uniaudio corpus`: make, read and tokenise the data that everything is trained on, and see what becomes of it."""

from __future__ import annotations

import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import CodecOption, ForceOption, load_codec, number_option
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.shipped import STARTER_CODEC
from codec.io.terminal import one_line, say

if TYPE_CHECKING:
    from auditory_sentences.stream.examples import Entry, Example
    from training.lm.sentences import Drawn

_WIDTH = 88  # characters of a segment's text in the terminal; the page has all of it

app = typer.Typer(help="Make a corpus, look at one, build a token store, see what is made of it.", no_args_is_help=True)

CorporaArgument = Annotated[
    list[Path],
    typer.Argument(help="Corpora: folders with clips.jsonl, or YAML files that describe other sources."),
]


@app.command()
def synthesise(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    seed: Annotated[int, number_option(numbers.Seed, "--seed", help="Same seed, same corpus.")] = 0,
    small: Annotated[bool, typer.Option("--small", help="About a minute of sound, to try things out.")] = False,
    all_tasks: Annotated[
        bool,
        typer.Option(
            "--all-tasks",
            help="With edited and reverberant speech, two speakers or instruments at once, questions and songs.",
        ),
    ] = False,
    processes: Annotated[
        int,
        number_option(numbers.Processes, "--processes", help="Processes that make it; they change nothing in it."),
    ] = os.cpu_count() or 1,
) -> None:
    """Write the starter corpus: speech, sounds and music with exact labels, over three hours."""
    from auditory_sentences.starter.corpus import synthesise
    from auditory_sentences.starter.jobs import ALL_TASKS, DEMO, SMALL, SMALL_ALL_TASKS

    sizes = {(False, False): DEMO, (True, False): SMALL, (False, True): ALL_TASKS, (True, True): SMALL_ALL_TASKS}
    synthesise(out, seed, sizes[small, all_tasks], processes)
    count([out])


@app.command()
def count(corpora: CorporaArgument) -> None:
    """Count a corpus' clips by kind and split, and say how many have no audio file."""
    from auditory_sentences.corpora.read import read_corpus

    for corpus in corpora:
        clips = read_corpus(corpus)
        for (kind, split), count in sorted(Counter((clip.kind, clip.split) for clip in clips).items()):
            say(f"{one_line(corpus)}\t{kind}\t{split}\t{count}")
        missing = [clip.path for clip in clips if not os.path.isfile(clip.path)]
        if missing:
            warnings.warn(
                f"{corpus}: {len(missing)} of {len(clips)} clips have no audio file, {missing[0]} the first",
                stacklevel=1,
            )


@app.command()
def store(
    corpora: CorporaArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the token store.")],
    codec: CodecOption = Path(STARTER_CODEC),
    strict: Annotated[bool, typer.Option("--strict", help="A clip that cannot be read stops the build.")] = False,
    max_failures: Annotated[
        float | None,
        number_option(
            numbers.Share,
            "--max-failures",
            help="Share of the clips that may be unreadable before the build stops; 0.1, or ten clips, if not given.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Take clips out of the store that the corpora no longer hold.")
    ] = False,
) -> None:
    """Tokenise corpora into a token store, resume a build that was interrupted, or bring a store up to date."""
    from auditory_sentences.corpora.read import read_corpora
    from auditory_sentences.token_store import build_store

    clips = read_corpora(corpora)
    built = build_store(
        clips,
        load_codec(codec),
        out,
        strict=strict,
        prune=prune,
        max_failures=max_failures,
        tokenizer_source=codec,
    )
    say(f"{one_line(out)}\t{len(built)} clips\t{built.seconds / 3600:.2f} h\ttokenizer {built.fingerprint}")


@app.command()
def show(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe of a language model: a file, or a shipped one such as starter/stage4.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, for example store=runs/mine/tokens init=starter/model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write a page, PAGE.html, that plays them.")
    ] = None,
    each: Annotated[int, number_option(numbers.Count, "--count", help="Sentences of each entry.")] = 10,
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
    """Show the auditory sentences of a recipe's mixture, as training draws them; of a corpus, count its clips."""
    if _is_corpus(recipe):
        count([recipe, *map(Path, overrides or ())])
        return
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
    drawn = draw(read, each, only or (), split)
    for line in _lines(drawn):
        say(line)
    if out is not None:
        _write(drawn, str(recipe), out, corpus or [], decoded, force)
        say(f"page\t{one_line(out)}\t{out.stat().st_size / 1e6:.1f} MB")


def _is_corpus(path: Path) -> bool:
    """Whether something is a corpus, which `show` once was for, rather than a recipe: no mixture is described there."""
    if os.path.isdir(path):
        return True
    return (
        path.suffix.lower() in (".yaml", ".yml")
        and os.path.isfile(path)
        and not any(line.startswith(("out:", "mixture:", "steps:")) for line in _head(path))
    )


def _head(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(100_000).splitlines()


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
