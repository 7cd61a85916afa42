"""Several runs of one suite, such as models of several training seeds: mean and standard error over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codec.io.errors import UserError
from evaluation.compare.paired import mean_over_runs
from evaluation.compare.pairing import ScoreMeta, by_task, named, require_different, why_not
from evaluation.compare.run import Key, Run
from evaluation.compare.tables import described, over_runs, plain, with_error
from evaluation.report.side_by_side import Cell, Table, markdown_table
from evaluation.report.text import cell, shown


@dataclass(frozen=True)
class Averaged:
    """One score of one task over several runs."""

    # of the task
    key: Key
    # of the task
    title: str
    # how it reads
    meta: ScoreMeta
    # of each run that has a value
    values: tuple[float, ...]
    # mean of the values
    mean: float
    # standard error of the mean over runs; None for a single value
    stderr: float | None
    # standard error of one run over items: root of the mean square; None where no run has one
    of_items: float | None
    # fewest and most items of a run
    items: tuple[int, int]
    # mean score of a guess; None where there is none
    chance: float | None


def average(runs: Sequence[Run]) -> tuple[list[Averaged], list[str]]:
    """Mean of every score that all runs have, and why tasks are left out, a sentence each.

    Raises:
        UserError: A run is given twice, or the runs have no score in common.
    """
    require_different(runs)
    several = any(len(run.codecs) > 1 for run in runs)
    tables = [by_task(run, several) for run in runs]
    rows: list[Averaged] = []
    left_out: list[str] = []
    for key in dict.fromkeys(key for table in tables for key in table):
        if missing := [str(run.folder) for run, table in zip(runs, tables, strict=True) if key not in table]:
            left_out.append(f"{named(key)}: is not in {', '.join(missing)}")
            continue
        entries = [table[key] for table in tables]
        if why := why_not(entries, runs):
            left_out.append(why)
            continue
        for name, first in entries[0].scores.items():
            found = [entry.scores[name] for entry in entries if name in entry.scores]
            known = [score for score in found if score["value"] is not None]
            if not known:
                continue
            mean, error = mean_over_runs(np.array([score["value"] for score in known], dtype=np.float64))
            errors = [score["stderr"] for score in known if score["stderr"] is not None]
            chances = [score["chance"] for score in known if score["chance"] is not None]
            meta = ScoreMeta(name, first["metric"], first["direction"], first["percent"], first["unit"])
            counts = [score["n"] for score in known]
            rows.append(
                Averaged(
                    key, entries[0].title, meta, tuple(float(score["value"]) for score in known), mean, error,
                    math.sqrt(sum(e**2 for e in errors) / len(errors)) if errors else None,
                    (min(counts), max(counts)), sum(chances) / len(chances) if chances else None,
                )
            )  # fmt: skip
    if not rows:
        raise UserError(
            f"{runs[0].folder} and the others have no score in common ({'; '.join(left_out[:3]) or 'no scores'}); "
            "evaluate all with the same suite"
        )
    return rows, left_out


def average_table(rows: Sequence[Averaged]) -> Table:
    """A row for each score, grouped by task."""
    head = [Cell("Task", name=True), Cell("Score", name=True), Cell("Mean ± standard error over runs"), Cell("Runs")]
    head += [Cell(name) for name in ("Each run", "± over items, one run", "Items", "Chance")]
    groups: dict[Key, list[list[Cell]]] = {}
    for row in rows:
        first = row.key not in groups
        _, shots, codec = row.key
        small = ", ".join(filter(None, (f"{shots} shot{'s' * (shots != 1)}" if shots else "", codec)))
        score = plain(row.meta)
        few, most = row.items
        groups.setdefault(row.key, []).append([
            Cell(row.title if first else "", small if first else "", name=True),
            Cell(row.meta.name, f"{row.meta.direction} is better", name=True),
            Cell(over_runs(row.meta, row.values)), Cell(str(len(row.values))),
            Cell(", ".join(with_error(row.meta, value, row.stderr, unit=False) for value in row.values)),
            Cell("–" if row.of_items is None else with_error(row.meta, row.of_items, row.of_items)),
            Cell(str(few) if few == most else f"{few} to {most}"), Cell(shown(score, row.chance)),
        ])  # fmt: skip
    return Table(head, list(groups.values()))


def average_sentences(runs: Sequence[Run], rows: Sequence[Averaged], left_out: Sequence[str]) -> list[str]:
    """What the numbers are, and what is not among them."""
    said = [
        f"Mean over {len(runs)} runs; ± is one standard error over runs, s / sqrt(runs): what other seeds of training "
        "would change. Over items: one standard error of a single run, what other items would change."
    ]
    if len(runs) < 3:
        said.append("Two runs say little of their spread: three or more tell.")
    if fewer := [f"{named(r.key)}, {r.meta.name}" for r in rows if len(r.values) < len(runs)]:
        said.append(f"Without a value in every run: {'; '.join(fewer)}.")
    return said + [f"Left out: {why}." for why in left_out]


def average_markdown(runs: Sequence[Run], rows: Sequence[Averaged], left_out: Sequence[str]) -> str:
    """The table as Markdown."""
    lines = [f"Runs: {cell(', '.join(map(described, runs)))}", "", *markdown_table(average_table(rows)), ""]
    return "\n".join(lines + [f"- {cell(line)}" for line in average_sentences(runs, rows, left_out)]) + "\n"
