"""Numbers and texts as the report's readers see them, in Markdown and in HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from codec.io.terminal import printable

LONGEST = 2_000  # characters of a text in the report; samples.jsonl has all of it


def shown(score: Mapping, estimate: Mapping | float | None, error: bool = True) -> str:
    """A value as people read it: "38.2 % ± 4.1", "–" where there is none.

    Args:
        score: Entry of a score in results.json: its unit.
        estimate: The value, with its standard error where it has one.
        error: Show the standard error.
    """
    value = estimate["value"] if isinstance(estimate, Mapping) else estimate
    if value is None:
        return "–"
    factor, digits = (100, 1) if score["percent"] else (1, 2 if abs(value) < 100 else 0)
    text = f"{factor * value:.{digits}f}" + (f" {score['unit']}" if score["unit"] else "")
    if error and isinstance(estimate, Mapping) and estimate.get("stderr") is not None:
        text += f" ± {factor * estimate['stderr']:.{digits}f}"
    return text


def bit_rate(bits_per_second: float | None) -> str:
    """A bit rate as people read it: "1.12 kb/s", "" where it is not known."""
    return "" if bits_per_second is None else f"{bits_per_second / 1000:.3g} kb/s"


def notes(score: Mapping, task: Mapping, before: str, after: str) -> str:
    """Remarks on the number of items of a score; "" where there are none."""
    unreadable, empty = len(task.get("unreadable", [])), score.get("empty_references", 0)
    found = [f"{empty} of silence"] if empty else []
    found += [f"{unreadable} recording{'s' * (unreadable != 1)} unreadable"] if unreadable else []
    return before + ", ".join(found) + after if found else ""


def skips(entries: Sequence[Mapping]) -> list[str]:
    """Why entries of one task were skipped, each reason once, with the codecs that it holds for where others go on."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if "skipped" in entry:
            reasons.setdefault(entry["skipped"], []).append(entry.get("codec", ""))
    whose = {why: "" if len(codecs) == len(entries) else f"{', '.join(codecs)}: " for why, codecs in reasons.items()}
    return [f"{codecs}skipped: {why}" for why, codecs in whose.items()]


def left_out(task: Mapping) -> list[str]:
    """Scores that were left out, with the reason, a sentence each."""
    return [f"{name}: {why}" for name, why in task.get("left_out", {}).items()]


def cell(text: object) -> str:
    """Text in a cell of a Markdown table: on one line, without marks of the table or of HTML, not endless."""
    plain = html.escape(shortened(" ".join(printable(text).split()), 300), quote=False)
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def escaped(text: object) -> str:
    """Text within HTML: harmless, and not endless."""
    return html.escape(shortened(printable(text)))


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text that is too long, with a remark."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"
