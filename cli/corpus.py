"""`uniaudio corpus`: make, read and tokenise the data that everything is trained on."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli import sentences
from cli.options import CodecOption, load_codec, number_option
from codec.io import numbers
from codec.io.shipped import STARTER_CODEC
from codec.io.terminal import one_line, say

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
    show([out])


@app.command()
def show(corpora: CorporaArgument) -> None:
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


app.command()(sentences.sentences)
