"""A comparison as a page that opens from disk by itself: the table, and the items that changed most, to be heard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from codec.io.errors import UserError
from codec.io.files import inside
from evaluation.compare.pairing import Changed, Comparison, ScorePair, TaskPair, named
from evaluation.compare.run import Asked, Run
from evaluation.compare.tables import HEAD, answered, comparison_table, described, plain, sentences
from evaluation.report import figures
from evaluation.report.page import html_page
from evaluation.report.side_by_side import Cell
from evaluation.report.sounds import sound_figure, waveform_of
from evaluation.report.text import escaped, shown

AUDIO_BUDGET = 6_000_000  # bytes of sound in the whole page; items beyond it have pictures, but no player


def comparison_page(comparison: Comparison, made: Mapping[str, str]) -> str:
    """The page.

    Args:
        comparison: What was compared.
        made: What the page says of its making, such as date and command.
    """
    budget = [AUDIO_BUDGET]
    facts = {
        "A": ", ".join(map(described, comparison.a)), "B": ", ".join(map(described, comparison.b)),
        "Suite": ", ".join(comparison.a[0].suites), "Tested": f"{comparison.tested} differences",
        "Marked": str(comparison.marked), **made,
    }  # fmt: skip
    listed = "".join(f"<p class='soft'>{escaped(sentence)}</p>" for sentence in sentences(comparison))
    sections = "".join(_section(task, comparison, budget) for task in comparison.tasks if task.better or task.worse)
    return html_page(
        "Comparison of two evaluations", "A and B", "The same items, answered by both: B - A, and how sure that is.",
        facts, f"<h2>All differences</h2>{_table(comparison)}{listed}{sections}", "",
    )  # fmt: skip


def _table(comparison: Comparison) -> str:
    head = "".join(_cell(Cell(name, name=i < 2), "th") for i, name in enumerate(HEAD[:5]))
    head += "<th>worse · better</th>" + "".join(_cell(Cell(name), "th") for name in HEAD[5:])
    rows = []
    for task, group in zip(comparison.tasks, comparison_table(comparison).groups, strict=True):
        for i, (score, cells) in enumerate(zip(task.scores, group, strict=True)):
            columns = [_cell(one, "td") for one in cells]
            if i == 0 and (task.better or task.worse):
                columns[0] = f'<td class="name"><a href="#{_anchor(task)}">{escaped(cells[0].text)}</a>' + (
                    f"<small>{escaped(cells[0].small)}</small></td>" if cells[0].small else "</td>"
                )
            columns.insert(5, f"<td>{_figure(score, _limit(task.scores, score))}</td>")
            rows.append(f"<tr{' class=first' if i == 0 else ''}>{''.join(columns)}</tr>")
    return f'<div class="scroll"><table class="compared differences"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _limit(scores: Sequence[ScorePair], like: ScorePair) -> float:
    """The largest end of an interval: scores in percent share a scale, all others have their own."""
    shared = [score for score in scores if score.meta.percent] if like.meta.percent else [like]
    return max((abs(end) for s in shared if s.difference for end in (s.difference.low, s.difference.high) if end),
               default=0.0)  # fmt: skip


def _figure(score: ScorePair, limit: float) -> str:
    found = score.difference
    if found is None or found.low is None or found.high is None:
        return ""
    sign = 1 if score.meta.direction == "higher" else -1
    return figures.difference_svg(sign * found.value, (sign * found.low, sign * found.high), limit)


def _cell(one: Cell, tag: str) -> str:
    marks = ["name"] * one.name + ["best"] * one.best + ["codec"] * (tag == "th" and not one.name)
    small = f"<small>{escaped(one.small)}</small>" if one.small else ""
    text = escaped(one.text)
    if " ± " in text:
        text = text.replace(" ± ", '<span class="pm"> ± ') + "</span>"
    named_as = f' class="{" ".join(marks)}"' if marks else ""
    return f"<{tag}{named_as}>{text}{small}</{tag}>"


def _anchor(task: TaskPair) -> str:
    return escaped(named(task.key).replace(" ", "-"))


def _section(task: TaskPair, comparison: Comparison, budget: list[int]) -> str:
    parts = []
    for title, some in (("B is better", task.better), ("B is worse", task.worse)):
        if some:
            cards = "".join(_card(task, changed, comparison, budget) for changed in some)
            parts.append(f'<h3>{title}</h3><div class="samples">{cards}</div>')
    several = max(len(comparison.a), len(comparison.b)) > 1
    whose = "; answers and sounds are those of the first run of each" if several else ""
    return (
        f'<section id="{_anchor(task)}"><div class="eyebrow">{escaped(named(task.key))}</div><h2>{escaped(task.title)}'
        f"</h2><p class='soft'>The items that changed most, by {escaped(task.ranked_by.name)}{whose}.</p>"
        f"{''.join(parts)}</section>"
    )


def _card(task: TaskPair, changed: Changed, comparison: Comparison, budget: list[int]) -> str:
    meta, a, b = task.ranked_by, changed.a, changed.b
    values = [shown(plain(meta), value) for value in (changed.a_value, changed.b_value)]
    lines = [("expected", escaped(a.expected))] if a.expected else []
    lines += [
        (letter, f"{escaped(answered(item, meta.name))} <small>{escaped(value)}</small>")
        for letter, item, value in zip("AB", (a, b), values, strict=True)
    ]
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in lines)
    sounds = []
    if a.reason != "scored":
        sounds.append(sound_figure("original recording", waveform_of(a.path), budget))
    for letter, item, run in (("A", a, comparison.a[0]), ("B", b, comparison.b[0])):
        if item.audio:
            sounds.append(sound_figure(f"{letter}, answer", _heard(run, item), budget))
    given = " ".join(a.given[-6:])
    said = f'<p class="read">{escaped(given)}</p>' if given else ""
    return (
        f'<article class="sample"><div class="path">{escaped(a.id)}</div>{said}<dl class="said">{listed}</dl>'
        f'<div class="sounds">{"".join(sounds)}</div></article>'
    )


def _heard(run: Run, item: Asked) -> np.ndarray | None:
    try:
        return waveform_of(Path(inside(run.folder, item.audio)))
    except UserError:  # a name that leads out of the folder
        return None
