"""A comparison as lines of text and as a table: for the terminal, Markdown and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evaluation.compare.paired import CONFIDENCE, RESAMPLES, mean_over_runs
from evaluation.compare.pairing import Changed, Comparison, ScoreMeta, ScorePair, TaskPair, named
from evaluation.compare.run import Asked, Run
from evaluation.report.side_by_side import Cell, Table, markdown_table
from evaluation.report.text import cell, shown

HEAD = ("Task", "Score", "A", "B", "B - A", "95 % interval", "Items", "Better / worse / equal", "Sign test", "B is")
NO_SPREAD = "no spread"
_NAMES = 2  # columns that are names, and stand on the left


def comparison_table(comparison: Comparison) -> Table:
    """A row for each score of each task, grouped by task."""
    head = [Cell(name, name=i < _NAMES) for i, name in enumerate(HEAD)]
    return Table(
        head, [[_row(task, score, i == 0) for i, score in enumerate(task.scores)] for task in comparison.tasks]
    )


def _row(task: TaskPair, score: ScorePair, first: bool) -> list[Cell]:
    meta, found = score.meta, score.difference
    _, shots, codec = task.key
    small = ", ".join(filter(None, (f"{shots} shot{'s' * (shots != 1)}" if shots else "", codec)))
    cells = [
        Cell(task.title if first else "", small if first else "", name=True),
        Cell(meta.name, f"{meta.direction} is better", name=True),
        *(Cell(over_runs(meta, values)) for values in (score.a, score.b)),
    ]
    if found is None:
        change = "–"
        if score.a and score.b:
            change = signed(meta, sum(score.b) / len(score.b) - sum(score.a) / len(score.a))
        return [*cells, Cell(change), Cell("–"), Cell("–"), Cell("–"), Cell("–"), Cell("")]
    ends = NO_SPREAD if found.stderr == 0 else "–"
    spread = found.stderr or None
    if found.low is not None and found.high is not None:
        ends = f"{signed(meta, found.low, spread, unit=False)} to {signed(meta, found.high, spread, unit=False)}"
    counts = score.better_worse_equal or ()
    return [
        *cells, Cell(signed(meta, found.value, spread), best=found.is_marked), Cell(ends), Cell(str(score.n)),
        Cell(" / ".join(map(str, counts))), Cell(probability(found.sign_p)),
        Cell(score.verdict, best=bool(score.verdict)),
    ]  # fmt: skip


def over_runs(meta: ScoreMeta, values: Sequence[float]) -> str:
    """A score of one run, or the mean of several with its standard error over runs; "–" without any."""
    if not values:
        return "–"
    mean, error = mean_over_runs(np.array(values))
    if not error:
        return shown(plain(meta), mean)
    return f"{with_error(meta, mean, error)} ± {with_error(meta, error, error, unit=False)}"


def plain(meta: ScoreMeta) -> dict[str, object]:
    """As `evaluation.report.text.shown` reads a score."""
    return {"percent": meta.percent, "unit": meta.unit}


def signed(meta: ScoreMeta, value: float, error: float | None = None, unit: bool = True) -> str:
    """A difference with its sign: "+3.2 points", with two digits of its standard error."""
    called = "points" if meta.unit == "%" else meta.unit
    number = f"{100 * value if meta.percent else value:+.{_digits(meta, error)}f}"
    if float(number) == 0:
        number = number.lstrip("+-")
    return number + (f" {called}" if unit and called else "")


def with_error(meta: ScoreMeta, value: float, error: float | None, unit: bool = True) -> str:
    """A value with two digits of its standard error, but at least those that tables of one run have."""
    number = f"{100 * value if meta.percent else value:.{_digits(meta, error)}f}"
    return number + (f" {meta.unit}" if unit and meta.unit else "")


def _digits(meta: ScoreMeta, error: float | None) -> int:
    factor, least = (100, 1) if meta.percent else (1, 2)
    return min(6, max(least, 1 - math.floor(math.log10(factor * error)))) if error else least


def probability(p: float) -> str:
    """A p-value: "0.031", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def sentences(comparison: Comparison) -> list[str]:
    """What the numbers are, what they are not, and what is not among them: a sentence or two each."""
    tested, marked = comparison.tested, comparison.marked
    runs = max(len(comparison.a), len(comparison.b)) > 1
    share = round(100 * (1 - CONFIDENCE))
    said = [
        f"{tested} difference{'s' * (tested != 1)} tested, {marked} marked: the {100 - share} % interval leaves out 0. "
        f"If A and B did not differ, one in {round(100 / share)} would be marked by chance, about "
        f"{share * tested / 100:.1f} of these {tested}."
    ]
    how = f"paired bootstrap over items ({RESAMPLES:,} resamples, both answered the same items)"
    if runs:
        said.append(
            "A and B are means over runs, ± one standard error over them. Interval: Student's t with the variance of "
            f"a {how} and of the runs."
        )
    else:
        said.append(f"Interval: percentiles of a {how}.")
    said.append(
        "Better, worse, equal: items whose own value is better in B, worse, or the same; sign test: two-sided p that "
        "better and worse are as likely."
    )
    if any(score.difference and score.difference.stderr == 0 for task in comparison.tasks for score in task.scores):
        said.append(
            "No spread: all items changed by the same, or not at all, so no interval can be formed of them; such a "
            f"difference is marked where the sign test is below {share / 100:.2f}."
        )
    said += comparison.notes
    for task in comparison.tasks:
        said += task_remarks(task)
    said += [f"Not compared: {why}." for why in comparison.left_out]
    return said


def task_remarks(task: TaskPair) -> list[str]:
    """Which items and scores of a task are not in the numbers."""
    only_a, only_b, partly = task.alone
    parts = [f"{only_a} item{'s' * (only_a != 1)} only in A"] * bool(only_a)
    parts += [f"{only_b} item{'s' * (only_b != 1)} only in B"] * bool(only_b)
    parts += [f"{partly} not in every run"] * bool(partly)
    parts += [f"{task.other_answers} with other right answers"] * bool(task.other_answers)
    said = []
    if parts:
        said.append(f"{named(task.key)}: {task.n} items are compared; left out: {', '.join(parts)}.")
    if task.other_requests:
        said.append(f"{named(task.key)}: {task.other_requests} of the items were asked otherwise in A and B.")
    said += [f"{named(task.key)}, {score.meta.name}: {score.remark}." for score in task.scores if score.remark]
    if together := [score.meta.name for score in task.scores if score.of_all_together]:
        said.append(f"{named(task.key)}: no interval for {', '.join(together)}: measured on all items together.")
    return said


def group_lines(comparison: Comparison) -> list[str]:
    """What A and B are."""
    groups = {"A": comparison.a, "B": comparison.b}
    return [f"{letter}: {', '.join(map(described, runs))}" for letter, runs in groups.items()]


def described(run: Run) -> str:
    """A run by its folder, and by the codec where one alone is evaluated."""
    return f"{run.folder}" + (f" ({', '.join(run.codecs)})" if run.codecs and not run.identity["model"] else "")


def markdown(comparison: Comparison) -> str:
    """The whole comparison, without sounds."""
    lines = [f"{cell(line)}  " for line in group_lines(comparison)]
    lines += ["", *markdown_table(comparison_table(comparison)), ""]
    lines += [f"- {cell(line)}" for line in sentences(comparison)]
    for task in comparison.tasks:
        if task.better or task.worse:
            lines += ["", f"**{cell(task.title)}** ({cell(named(task.key))}), items that changed most by "
                      f"{cell(task.ranked_by.name)}", ""]  # fmt: skip
            lines += markdown_table(_changed_table(task))
    return "\n".join(lines) + "\n"


def _changed_table(task: TaskPair) -> Table:
    head = [Cell(name, name=True) for name in ("Item", "Expected", "A answered", "B answered")]
    head += [Cell("A"), Cell("B")]
    rows = [_changed_row(task, changed) for changed in (*task.better, *task.worse)]
    return Table(head, [[row] for row in rows])


def _changed_row(task: TaskPair, changed: Changed) -> list[Cell]:
    meta = task.ranked_by
    values = [Cell(shown(plain(meta), value)) for value in (changed.a_value, changed.b_value)]
    texts = (changed.a.id, changed.a.expected or "–", *(answered(one, meta.name) for one in (changed.a, changed.b)))
    return [*(Cell(text, name=True) for text in texts), *values]


def answered(item: Asked, score: str) -> str:
    """What a model said to an item, in words: its text, or what the judge of a score read out of its sound."""
    if item.answer is not None:
        return item.answer or "(empty)"
    reading = item.readings.get(score)
    if reading is not None and reading.read is not None:
        return reading.read or "(nothing)"
    return "(sound)" if item.audio else ("–" if item.reason == "scored" else "(no audio)")
