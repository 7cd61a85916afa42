"""Codecs side by side: a table of each task, a plot of each score, and the same clips through every codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.report.plots import Point, rate_plot
from evaluation.report.side_by_side import by_score, html_table, is_quality, markdown_table, name_of, shared, table_of
from evaluation.report.sounds import sound_figure, waveform_of
from evaluation.report.text import bit_rate, cell, escaped, left_out, notes, skips

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
    """Lines of one table a task."""
    lines = []
    for entries in compared(results).values():
        done = [entry for entry in entries if "skipped" not in entry]
        most = max(entries, key=lambda entry: entry["n"])
        lines += ["", f"**{cell(most['title'])}**, n {most['n']}{notes({}, most, ' (', ')')}"]
        lines += [line for why in skips(entries) for line in ("", cell(why))]
        lines += ["", *markdown_table(table_of(done))] if done else []
        lines += [line for why in left_out(done[0]) for line in ("", f"Left out: {cell(why)}.")] if done else []
    return lines


def html_plots(entries: Sequence[Mapping]) -> str:
    """A plot of each score over the bit rate; codecs whose rate nobody knows are in none.

    No plot with one bit rate, and none of bits and counts of tokens: these are no quality.
    """
    plots = []
    for group in by_score([entry for entry in entries if "skipped" not in entry]):
        known = [(entry, score) for entry, score in group if score["value"] is not None and entry["bits_per_second"]]
        if len({entry["bits_per_second"] for entry, _ in known}) < 2 or not is_quality(group):
            continue
        points = [
            Point(_series(entry, score), entry["bits_per_second"], score["value"], score["stderr"] or 0.0)
            for entry, score in known
        ]
        first = known[0][1]
        original, chance = (shared(group, key) for key in ("original", "chance"))
        original = original and original["value"]
        far = first["metric"] == "si_sdr"  # 100 dB, the original against itself, would press all others flat
        titled = {**first, "name": name_of(first)}
        plots.append(rate_plot(titled, points, None if far else original, chance))
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _series(entry: Mapping, score: Mapping) -> str:
    """Name of a point: the codec, and the stream where it has several."""
    return entry["codec"] + score["name"].removeprefix(name_of(score))


def html_section(entries: Sequence[Mapping], samples: Mapping, out: Path, budget: list[int]) -> str:
    """One task: its table, its plots, and its first clips."""
    task = max(entries, key=lambda entry: entry["n"])
    done = [entry for entry in entries if "skipped" not in entry]
    head = f"{escaped(task['task'])}, version {task['version']}, {task['n']} clips"
    table = html_table(table_of(done)) if done else ""
    remarks = skips(entries) + ([f"Left out: {why}." for why in left_out(done[0])] if done else [])
    remarks += [notes({}, done[0], "", ".")] if done else []
    listed = "".join(f"<p class='soft'>{escaped(remark)}</p>" for remark in remarks if remark)
    clips = _clips(entries, samples, out, budget)
    return (
        f'<section id="{escaped(task["task"])}"><div class="eyebrow">{head}</div><h2>{escaped(task["title"])}</h2>'
        f"<p>{escaped(task['about'])}</p>{table}{listed}{_meanings(done)}{html_plots(entries)}"
        + (f'<div class="heard">{clips}</div></section>' if clips else "</section>")
    )


def _meanings(done: Sequence[Mapping]) -> str:
    """What each score means, folded away; where it differs between codecs or streams, of which."""
    said: dict[tuple[str, str], list[str]] = {}
    for group in by_score(done):
        for entry, score in group:
            if score["about"]:
                said.setdefault((name_of(score), score["about"]), []).append(_series(entry, score))
    names = [name for name, _ in said]
    listed = ""
    for (name, about), whose in said.items():
        of = f" ({'; '.join(whose)})" if names.count(name) > 1 else ""
        listed += f"<p class='soft'><b>{escaped(name)}</b>{escaped(of)}: {escaped(about)}</p>"
    return f"<details><summary>What each score means</summary>{listed}</details>" if listed else ""


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
        figures = [
            sound_figure("<b>original</b><br>recording", waveform_of(first["path"]), budget, _read(first, "original"))
        ]
        for entry, sample in made:
            rate = bit_rate(entry["bits_per_second"])
            caption = f"<b>{escaped(entry['codec'])}</b>{rate and f'<br>{rate}'}"
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
