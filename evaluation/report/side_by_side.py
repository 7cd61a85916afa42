"""One task's scores of several codecs as a table, in Markdown and in HTML.

Reconstructions have a column for each codec: originals and chance are the same for all of them. Measures of tokens have
a row for each codec and stream, since what stands beside them depends on the rate and the codebooks of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.report.text import bit_rate, cell, escaped, shown
from evaluation.streams import stream_name

Scored = tuple[Mapping, Mapping]  # the entry of a task and codec, and one of its scores


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    # what it says
    text: str
    # said beneath it, softer
    small: str = ""
    # whether it is a name, which stands on the left
    name: bool = False
    # whether it is the best of its row or group
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose rows are grouped by score."""

    # its first line
    head: Sequence[Cell]
    # of each score, the rows of it
    groups: Sequence[Sequence[Sequence[Cell]]]


def by_score(entries: Sequence[Mapping]) -> list[list[Scored]]:
    """Scores of one name together, in the order in which they are first met, those of all codecs and streams."""
    groups: dict[str, list[Scored]] = {}
    for entry in entries:
        for score in entry["scores"]:
            groups.setdefault(name_of(score), []).append((entry, score))
    return list(groups.values())


def name_of(score: Mapping) -> str:
    """Name of a score as its task has it, without the stream that a row of results.json has behind it."""
    return score.get("score", score["name"])


def shared(group: Sequence[Scored], key: str) -> Any:
    """What stands beside all scores of a group alike; None where each has its own."""
    known = [score[key] for _, score in group]
    return known[0] if all(value == known[0] for value in known) else None


def is_quality(group: Sequence[Scored]) -> bool:
    """Whether codecs can be ranked by it: bits and counts of tokens depend on how many tokens there are."""
    return any(score["scorer"] != "tokens" or score["percent"] for _, score in group)


def table_of(done: Sequence[Mapping]) -> Table:
    """The table of a task.

    Args:
        done: Its entries in results.json, one for each codec, but for those that were skipped.
    """
    groups = by_score(done)
    if any(score["scorer"] == "tokens" for group in groups for _, score in group):
        return _row_each(groups)
    return _column_each(done, groups)


def markdown_table(table: Table) -> list[str]:
    """Its lines; the best of a group is bold."""
    rows = [[_markdown(one) for one in row] for group in table.groups for row in group]
    rule = ["---" if one.name else "--:" for one in table.head]
    return [f"| {' | '.join(row)} |" for row in ([_markdown(one) for one in table.head], rule, *rows)]


def html_table(table: Table) -> str:
    """As an element that scrolls where it is wider than the screen."""
    head = "".join(_html(one, "th") for one in table.head)
    rows = "".join(
        f"<tr{' class=first' if i == 0 and len(group) > 1 else ''}>{''.join(_html(one, 'td') for one in row)}</tr>"
        for group in table.groups
        for i, row in enumerate(group)
    )
    return f'<div class="scroll"><table class="compared"><tr>{head}</tr>{rows}</table></div>'


def _column_each(done: Sequence[Mapping], groups: Sequence[Sequence[Scored]]) -> Table:
    names = [Cell(entry["codec"], bit_rate(entry["bits_per_second"])) for entry in done]
    head = [Cell("Score", name=True), Cell("Originals"), *names, Cell("Chance")]
    rows = []
    for group in groups:
        first, best = group[0][1], _best(group)
        of_codec = {entry["codec"]: _value(entry, score, best) for entry, score in group}
        values = [of_codec.get(entry["codec"], Cell("–")) for entry in done]
        rows.append(
            [[_title(first), Cell(shown(first, first["original"])), *values, Cell(shown(first, first["chance"]))]]
        )
    return Table(head, rows)


def _row_each(groups: Sequence[Sequence[Scored]]) -> Table:
    head = [Cell(name, name=True) for name in ("Score", "Codec", "Stream")]
    head += [Cell(name) for name in ("Tokens", "Originals", "Chance")]
    rows = [_rows_of(group) for group in groups]
    if all(row[4].text == "–" for group in rows for row in group):  # measures that recordings themselves do not have
        return Table([*head[:4], head[5]], [[[*row[:4], row[5]] for row in group] for group in rows])
    return Table(head, rows)


def _rows_of(group: Sequence[Scored]) -> list[list[Cell]]:
    best, rows = _best(group) if is_quality(group) else None, []
    for i, (entry, score) in enumerate(group):
        new = i == 0 or group[i - 1][0] is not entry
        codec = Cell(entry["codec"], bit_rate(entry["bits_per_second"]) if new else "", name=True)
        beside = [Cell(shown(score, score[key])) for key in ("original", "chance")]
        title = _title(score) if i == 0 else Cell("", name=True)
        rows.append([title, codec, Cell(stream_name(score["stream"]), name=True), _value(entry, score, best), *beside])
    return rows


def _title(score: Mapping) -> Cell:
    return Cell(name_of(score), f"{score['direction']} is better", name=True)


def _value(entry: Mapping, score: Mapping, best: float | None) -> Cell:
    fewer = score["n"] != entry["n"] and score["value"] is not None
    return Cell(
        shown(score, score), f"of {score['n']}" if fewer else "", best=best is not None and score["value"] == best
    )


def _best(group: Sequence[Scored]) -> float | None:
    """The best value; None where one codec alone has any, or all are alike."""
    known = [(entry["codec"], score["value"]) for entry, score in group if score["value"] is not None]
    if min(len({codec for codec, _ in known}), len({value for _, value in known})) < 2:
        return None
    return (max if group[0][1]["direction"] == "higher" else min)(value for _, value in known)


def _markdown(one: Cell) -> str:
    text = cell(one.text)
    text = f"**{text}**" if one.best else text
    return f"{text} ({cell(one.small)})" if one.small else text


def _html(one: Cell, tag: str) -> str:
    kinds = ["name"] * one.name + ["best"] * one.best + ["codec"] * (tag == "th" and not one.name)
    text = escaped(one.text)
    if " ± " in text:
        text = text.replace(" ± ", '<span class="pm"> ± ') + "</span>"
    small = f"<small>{escaped(one.small)}</small>" if one.small else ""
    marks = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{marks}>{text}{small}</{tag}>"
