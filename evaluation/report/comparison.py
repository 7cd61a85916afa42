"""Codecs side by side: one table a task, a plot a score, and the same clips through every codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.report.plots import Point, rate_plot
from evaluation.report.sounds import sound_figure, waveform_of
from evaluation.report.text import bit_rate, cell, escaped, left_out, notes, shown

SHOWN = 2  # clips of a task in the report: its first, not its best


def compared(results: Mapping) -> dict[str, list[Mapping]]:
    """Name of a task -> its entries, one for each codec; {} where fewer than two codecs were evaluated."""
    groups: dict[str, list[Mapping]] = {}
    if len(results.get("codecs", ())) > 1:
        for task in results["tasks"]:
            if "codec" in task:
                groups.setdefault(task["task"], []).append(task)
    return groups


def markdown_tables(results: Mapping) -> list[str]:
    """Lines of one table a task: a row for each score, a column for each codec."""
    lines = []
    for entries in compared(results).values():
        done = [entry for entry in entries if "skipped" not in entry]
        most = max(entries, key=lambda entry: entry["n"])
        lines += ["", f"**{cell(most['title'])}**, n {most['n']}{notes({}, most, ' (', ')')}", ""]
        lines += [cell(why) for why in _skipped(entries)]
        if not done:
            continue
        names = [f"{cell(e['codec'])} {bit_rate(e['bits_per_second'])}".strip() for e in done]
        lines += ["| score | better | originals | " + " | ".join(names) + " | chance |"]
        lines += ["|---|---|--:|" + "--:|" * (len(names) + 1)]
        for name, scores in _by_score(done).items():
            first = next(score for score in scores if score)
            values = [_markdown_value(score, entry["n"]) for score, entry in zip(scores, done, strict=True)]
            beside = [_beside(score, scores) for score in scores]
            values = [value + (f" ({text})" if text else "") for value, text in zip(values, beside, strict=True)]
            original, chance = (shown(first, _shared(scores, key)) for key in ("original", "chance"))
            row = [cell(name), first["direction"], original, *values, chance]
            lines.append("| " + " | ".join(row) + " |")
        lines += [f"Left out: {cell(why)}." for why in left_out(done[0])]
    return lines


def html_table(entries: Sequence[Mapping]) -> str:
    """The table of one task."""
    done = [entry for entry in entries if "skipped" not in entry]
    skipped = "".join(f"<p class='soft'>{escaped(why)}</p>" for why in _skipped(entries))
    if not done:
        return skipped
    names = "".join(
        f'<th class="codec">{escaped(e["codec"])}<small>{bit_rate(e["bits_per_second"]) or "–"}</small></th>'
        for e in done
    )
    rows = [f'<tr><th class="name">Score</th><th>Originals</th>{names}<th>Chance</th></tr>']
    for name, scores in _by_score(done).items():
        first = next(score for score in scores if score)
        cells = [_html_value(first, _shared(scores, "original"), done[0]["n"])]
        best = _best(scores, first["direction"])
        cells += [
            _html_value(first, score, entry["n"], score is not None and score["value"] == best, _beside(score, scores))
            for score, entry in zip(scores, done, strict=True)
        ]
        cells.append(_html_value(first, _shared(scores, "chance"), done[0]["n"]))
        rows.append(
            f'<tr><td class="name">{escaped(name)}<small>{first["direction"]} is better</small></td>'
            f"{''.join(cells)}</tr>"
        )
    remarks = "".join(f"<p class='soft'>Left out: {escaped(why)}.</p>" for why in left_out(done[0]))
    unreadable = notes({}, done[0], "<p class='soft'>", ".</p>")
    return f'<div class="scroll"><table class="compared">{"".join(rows)}</table></div>{skipped}{remarks}{unreadable}'


def html_plots(entries: Sequence[Mapping]) -> str:
    """A plot of each score over the bit rate; codecs whose rate nobody knows are in none."""
    done = [entry for entry in entries if "skipped" not in entry]
    plots = []
    for scores in _by_score(done).values():
        first = next(score for score in scores if score)
        points = [
            Point(entry["codec"], entry["bits_per_second"], score["value"], score["stderr"] or 0.0)
            for entry, score in zip(done, scores, strict=True)
            if score and score["value"] is not None and entry["bits_per_second"]
        ]
        original, chance = _shared(scores, "original"), _shared(scores, "chance")
        original = original and original["value"]
        far = first["metric"] == "si_sdr"  # 100 dB, the original against itself, would press all others flat
        plots.append(rate_plot(first, points, None if far else original, chance))
    return f'<div class="plots">{"".join(plots)}</div>' if any(plots) else ""


def html_section(entries: Sequence[Mapping], samples: Mapping, out: Path, budget: list[int]) -> str:
    """One task: its table, its plots, and its first clips."""
    task = max(entries, key=lambda entry: entry["n"])
    about = {s["name"]: s["about"] for entry in entries for s in entry["scores"] if s["about"]}
    judged = "".join(f"<p class='soft'><b>{escaped(n)}</b>: {escaped(text)}</p>" for n, text in about.items())
    head = f"{escaped(task['task'])}, version {task['version']}, {task['n']} clips"
    return (
        f'<section id="{escaped(task["task"])}"><div class="eyebrow">{head}</div><h2>{escaped(task["title"])}</h2>'
        f"<p>{escaped(task['about'])}</p>{html_table(entries)}"
        f"<details><summary>What each score means</summary>{judged}</details>{html_plots(entries)}"
        f'<div class="heard">{_clips(entries, samples, out, budget)}</div></section>'
    )


def html_codecs(results: Mapping) -> str:
    """What was evaluated: a row for each codec."""
    rows = ['<tr><th class="name">Codec</th><th>Bit rate</th><th>Parameters</th><th>Identity</th></tr>']
    for codec in results["codecs"]:
        size = f"{codec['parameters'] / 1e6:.2f} M" if codec["parameters"] else "–"
        rate = bit_rate(codec["bits_per_second"]) or "counted"
        rows.append(
            f'<tr><td class="name">{escaped(codec["name"])}<small>{escaped(codec["source"])}</small></td>'
            f"<td>{rate}</td><td>{size}</td><td><small>{escaped(codec['fingerprint'])}</small></td></tr>"
        )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _clips(entries: Sequence[Mapping], samples: Mapping, out: Path, budget: list[int]) -> str:
    """The first clips: the original, and beside it what every codec makes of it."""
    listed = [(entry, samples.get((entry["task"], entry["shots"], entry["codec"]), [])) for entry in entries]
    cards = []
    for i in range(SHOWN):
        made = [(entry, of_codec[i]) for entry, of_codec in listed if i < len(of_codec)]
        if not made:
            break
        first = made[0][1]
        figures = [sound_figure("original", waveform_of(first["path"]), budget, _read(first, "original"))]
        for entry, sample in made:
            rate = bit_rate(entry["bits_per_second"])
            caption = f"<b>{escaped(entry['codec'])}</b>{rate and f', {rate}'}"
            figures.append(sound_figure(caption, waveform_of(out / sample["audio"]), budget, _read(sample, "read")))
        said = f'<p class="words">{escaped(first["expected"])}</p>' if first["expected"] else ""
        cards.append(
            f'<article class="sample"><div class="path">{escaped(first["id"])}</div>{said}'
            f'<div class="sounds">{"".join(figures)}</div></article>'
        )
    return "".join(cards)


def _read(sample: Mapping, what: str) -> str:
    """What judges read out of a sound, in words."""
    found = [p[what] for p in sample["predictions"].values() if p[what] is not None]
    return "".join(f'<p class="read">{escaped(text) or "(nothing)"}</p>' for text in found)


def _skipped(entries: Sequence[Mapping]) -> list[str]:
    """Why codecs were not evaluated, each reason once: what the data lack holds for all of them."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        if "skipped" in entry:
            reasons.setdefault(entry["skipped"], []).append(entry["codec"])
    whose = {why: "" if len(codecs) == len(entries) else f"{', '.join(codecs)}: " for why, codecs in reasons.items()}
    return [f"{codecs}skipped: {why}" for why, codecs in whose.items()]


def _by_score(entries: Sequence[Mapping]) -> dict[str, list[Mapping | None]]:
    """Name of a score -> that of each entry; None where one lacks it."""
    names = dict.fromkeys(score["name"] for entry in entries for score in entry["scores"])
    return {n: [next((s for s in e["scores"] if s["name"] == n), None) for e in entries] for n in names}


def _best(scores: Sequence[Mapping | None], direction: str) -> float | None:
    values = [score["value"] for score in scores if score and score["value"] is not None]
    return (max if direction == "higher" else min)(values, default=None)


def _shared(scores: Sequence[Mapping | None], key: str) -> Any:
    """What stands beside every codec's score alike; None where each has its own, as measures of tokens have."""
    known = [score[key] for score in scores if score]
    return known[0] if all(value == known[0] for value in known) else None


def _beside(score: Mapping | None, scores: Sequence[Mapping | None]) -> str:
    """Originals and chance of one codec's score, where they are its own."""
    if score is None:
        return ""
    own = [(word, score[key]) for word, key in (("originals", "original"), ("chance", "chance"))]
    return ", ".join(
        f"{word} {shown(score, value)}"
        for (word, value), key in zip(own, ("original", "chance"), strict=True)
        if value is not None and _shared(scores, key) is None
    )


def _markdown_value(score: Mapping | None, n: int) -> str:
    if score is None:
        return "–"
    return shown(score, score) + (f" (n {score['n']})" if score["n"] != n else "")


def _html_value(score: Mapping, value: Any, n: int, best: bool = False, beside: str = "") -> str:
    text = escaped(shown(score, value))
    if " ± " in text:
        text = text.replace(" ± ", '<span class="pm"> ± ') + "</span>"
    fewer = isinstance(value, Mapping) and value["n"] != n
    of = f"<small>of {value['n']}</small>" if fewer else ""
    own = f"<small>{escaped(beside)}</small>" if beside else ""
    return f"<td{' class=best' if best else ''}>{text}{of}{own}</td>"
