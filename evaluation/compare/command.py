"""`evaluate compare A B` and `evaluate average A1 A2 A3`: what finished evaluations say together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.io.errors import UserError
from codec.io.files import new_file, require_free
from codec.io.terminal import one_line, printable, say
from evaluation.config import Parser

WORDS = ("compare", "average")


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether a command line of `evaluate` means one of these, not an evaluation."""
    return bool(arguments) and arguments[0] in WORDS


def run_word(arguments: Sequence[str], program: str) -> None:
    """Do what a command line asks for, its word first.

    Args:
        arguments: As people write them.
        program: Name of the command in usage lines.

    Raises:
        UserError: Anything that a person has to put right; nothing has been written then.
    """
    word, *rest = arguments
    {"compare": _compare, "average": _average}[word](rest, f"{program} {word}")


def _compare(arguments: Sequence[str], program: str) -> None:
    parser = Parser(
        prog=program, allow_abbrev=False,
        description="The difference B - A of two finished evaluations, item by item, with its 95 % interval.",
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="A and B; with --with, every run of A")
    parser.add_argument(
        "--with", dest="other", nargs="+", action="extend", metavar="FOLDER", help="every run of B, of other seeds"
    )
    _add_out(parser, "comparison.md, comparison.html (with sounds) and comparison.json")
    asked = parser.parse_args(list(arguments))
    a, b = asked.folders, asked.other
    if b is None:
        if len(a) != 2:
            parser.error(
                f"compares two folders, not {len(a)}; for several runs of each: A1 A2 A3 --with B1 B2 B3; for the mean "
                "of runs: average"
            )
        a, b = a[:1], a[1:]
    _require_names([*a, *b])
    out = _Files(asked.out, "comparison", ("md", "html", "json"), asked.force)
    from evaluation.compare import tables
    from evaluation.compare.page import comparison_page
    from evaluation.compare.pairing import compare_runs, require_different_folders
    from evaluation.compare.run import read_run

    require_different_folders([*a, *b])
    found = compare_runs([read_run(Path(name)) for name in a], [read_run(Path(name)) for name in b])
    _print_table(tables.comparison_table(found), tables.group_lines(found), tables.sentences(found))
    if asked.out:
        from codec.io.provenance import provenance

        made = provenance(("uniaudio", "numpy", "scipy"))
        page = comparison_page(found, {"Date": made["date"].replace("T", " ").removesuffix("+00:00") + " UTC"})
        plain = {
            "format": 1, "a": [str(run.folder) for run in found.a], "b": [str(run.folder) for run in found.b], **made,
            "tested": found.tested, "marked": found.marked, "tasks": [_plain_task(task) for task in found.tasks],
            "left_out": list(found.left_out), "notes": list(found.notes),
        }  # fmt: skip
        out.write({"md": tables.markdown(found), "html": page, "json": json.dumps(plain, indent=1) + "\n"})


def _average(arguments: Sequence[str], program: str) -> None:
    parser = Parser(
        prog=program, allow_abbrev=False,
        description="Mean and standard error over several finished evaluations of one suite, such as training seeds.",
    )  # fmt: skip
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the runs, two or more")
    _add_out(parser, "average.md and average.json")
    asked = parser.parse_args(list(arguments))
    if len(asked.folders) < 2:
        parser.error("takes two or more folders")
    _require_names(asked.folders)
    out = _Files(asked.out, "average", ("md", "json"), asked.force)
    from evaluation.compare import average as averages
    from evaluation.compare.pairing import require_different_folders
    from evaluation.compare.run import read_run
    from evaluation.compare.tables import described

    require_different_folders(asked.folders)
    runs = [read_run(Path(name), items=False) for name in asked.folders]
    rows, left_out = averages.average(runs)
    said = averages.average_sentences(runs, rows, left_out)
    _print_table(averages.average_table(rows), [f"Runs: {', '.join(map(described, runs))}"], said)
    if asked.out:
        from codec.io.provenance import provenance

        plain = {
            "format": 1, "runs": [str(run.folder) for run in runs], **provenance(("uniaudio", "numpy")),
            "scores": [asdict(row) for row in rows], "left_out": left_out,
        }  # fmt: skip
        markdown = averages.average_markdown(runs, rows, left_out)
        out.write({"md": markdown, "json": json.dumps(plain, indent=1) + "\n"})


def _add_out(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--out", "-o", metavar="OUT", help=f"folder for {files} (default: only the table)")
    parser.add_argument("--force", action="store_true", help="replace these files in that folder")


def _require_names(folders: Sequence[str]) -> None:
    for folder in folders:
        if not folder.strip() or "\0" in folder:
            raise UserError("a folder must have a name; give the --out folder of a finished `uniaudio evaluate`")


class _Files:
    """The files that are written, checked before the work begins."""

    def __init__(self, out: str | None, name: str, endings: Sequence[str], force: bool) -> None:
        if out is not None and not out.strip():
            raise UserError("--out must name something")
        self.force = force
        self.paths = {ending: Path(out) / f"{name}.{ending}" for ending in endings} if out else {}
        for path in self.paths.values():
            require_free(path, force=force)

    def write(self, texts: dict[str, str]) -> None:
        """Write a text for each ending, and say where."""
        for ending, text in texts.items():
            with new_file(self.paths[ending], force=self.force) as temporary:
                temporary.write_text(text, encoding="utf-8", newline="\n")
            say(self.paths[ending])


def _plain_task(task: Any) -> dict[str, Any]:
    """A task of comparison.json: numbers, and which items changed most."""
    values = asdict(task)
    for score, pair in zip(values["scores"], task.scores, strict=True):
        score["verdict"] = pair.verdict
    for side in ("better", "worse"):
        values[side] = [{"id": one["a"]["id"], "a": one["a_value"], "b": one["b_value"]} for one in values[side]]
    return values


def _print_table(table: Any, before: Sequence[str], after: Sequence[str]) -> None:
    """On standard output: as wide as the terminal, or as the table where nobody watches."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    watched = sys.stdout.isatty()
    console = Console(width=None if watched else 400, highlight=False)
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for one in table.head:
        shown.add_column(printable(one.text), justify="left" if one.name else "right", no_wrap=not watched)
    for group in table.groups:
        for row in group:
            cells = []
            for one in row:
                text = Text(one_line(one.text), style="bold" if one.best else "")
                cells.append(text.append(f" ({one_line(one.small)})", style="dim") if one.small else text)
            shown.add_row(*cells)
    for line in before:
        say(line)
    say("")
    console.print(shown)
    say("")
    for line in after:
        say(line)
