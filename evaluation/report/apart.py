"""Scores of the items of one kind and of another: what a mean over both hides.

A task may name a label (`apart: content`); each of its scores is then told for every value of the label too.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.report.side_by_side import Cell, Table
from evaluation.report.text import shown

ABOUT = "The same answers, by what they are of: the model's scores of the items with one value of a label alone."


def scores_apart(results: Mapping) -> Table | None:
    """A row for each score and value of its task's label; None where no task names one.

    Args:
        results: As in results.json.
    """
    groups = []
    for task in results["tasks"]:
        shots = f", {task['shots']} shot{'s' * (task['shots'] != 1)}" if task["shots"] else ""
        for score in task["scores"]:
            rows = [
                [
                    Cell(f"{task['title']} · {score['name']}{shots}" if i == 0 else "", name=True),
                    Cell(value, name=True),
                    Cell(shown(score, part)),
                    Cell(str(part["n"])),
                ]
                for i, (value, part) in enumerate(score.get("apart", {}).items())
            ]
            groups += [rows] if rows else []
    if not groups:
        return None
    return Table([Cell("Score", name=True), Cell("Of", name=True), Cell("Model"), Cell("n")], groups)
