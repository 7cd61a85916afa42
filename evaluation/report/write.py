"""The files of a run: results.json, samples.jsonl, results.md, and report.html, which opens from disk by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jiwer

from codec.io.files import write_text
from evaluation.report import apart, comparison, figures, judges
from evaluation.report.page import html_page
from evaluation.report.plots import Point, shots_plot
from evaluation.report.precision import told_apart
from evaluation.report.side_by_side import Table, html_table, markdown_table
from evaluation.report.sounds import sound_figure as _sound
from evaluation.report.sounds import waveform_of as _waveform
from evaluation.report.text import LONGEST, left_out, shown
from evaluation.report.text import cell as _cell
from evaluation.report.text import escaped as _e
from evaluation.report.text import notes as _notes
from evaluation.results_folder import REPORT, RESULTS, SAMPLES, TABLE
from lm.words import normalise_words

SHOWN = 4  # samples of a task in the report: its first items, not its best
AUDIO_BUDGET = 6_000_000  # bytes of sound in the whole report; samples beyond it have pictures, but no player

_OF_MODELS = """± is one standard error. The untrained model has the same configuration and random weights; where it
answered fewer items, their number is given. Chance is a guess among the possible answers or, for words and sounds, the
right answer of another item. <em>Unchanged</em> is the recording that the request gives, left as it is.
<em>Originals</em> and <em>codec</em> give the same judge the original recordings and the
codec's reconstructions of them: no generated sound can be expected to score higher. Answers that name no label, or
several, are unparsed; they count as wrong and are never guessed."""
_OF_CODECS = """± is one standard error, and the best codec is bold; what lies within two errors of it is as good.
<em>Originals</em> are the recordings themselves before the same judge; where they are compared with themselves, that is
what a codec without loss has. Chance is another clip in the place of the right one or, for predicted opinions, noise
with the clip's spectrum. Of tokens, originals are the log-mel spectrum at the stream's rate, and chance is what tokens
have that know nothing."""


def write_report(results: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write all files of a run.

    Args:
        results: What was evaluated, with the tasks' entries and their samples.
        out: Folder to write into.

    Returns:
        What results.json holds: the results without the samples.
    """
    samples = {_key(t): t.pop("samples", []) for t in results["tasks"]}
    written = json.dumps(results, indent=1)
    write_text(out / SAMPLES, "".join(json.dumps(s) + "\n" for group in samples.values() for s in group))
    write_text(out / TABLE, markdown(results))
    write_text(out / REPORT, _html(results, samples, out))
    write_text(out / RESULTS, written + "\n")  # last: where it is, all is
    return json.loads(written)


def _key(task: Mapping) -> tuple:
    """What one entry of results.json is known by: a task, a number of shots, and a codec where codecs are evaluated."""
    return task["task"], task["shots"], task.get("codec")


def markdown(results: Mapping) -> str:
    """The table of all scores; where several codecs were evaluated, one for each of their tasks."""
    together = comparison.compared(results)
    alone = [task for task in results["tasks"] if task["task"] not in together]
    lines = _rows(alone) if alone else []
    lines += comparison.markdown_tables(results)
    who = results.get("model")
    source = f"{_cell(who['source'])} (fingerprint {who['fingerprint']})" if who else _codecs_named(results)
    lines += [
        "",
        f"{source}, {results['date']}, commit {results['git_commit'] or 'unknown'}. "
        "± is one standard error. Originals and codec: the same judge on the original recordings and on the codec's "
        "reconstructions of them. Unparsed answers count as wrong. Of silence: items whose reference holds no word; "
        "silence is right there, and each recognised word counts as an error.",
        "",
    ]
    lines += [sentence, ""] if (sentence := told_apart(results["tasks"])) else []
    if parts := apart.scores_apart(results):
        lines += [apart.ABOUT, "", *markdown_table(parts), ""]
    if floors := judges.judged_sounds(results):
        lines += [judges.ABOUT, "", *markdown_table(floors), ""]
    if sources := _sources(results["tasks"]):
        lines += [f"Published, on data and with judges that differ from these: {_cell('; '.join(sources))}.", ""]
    return "\n".join(lines).lstrip("\n")


def _codecs_named(results: Mapping) -> str:
    codecs = results.get("codecs", [results["codec"]])
    return ", ".join(f"{_cell(codec['source'])} (fingerprint {codec['fingerprint']})" for codec in codecs)


def _rows(tasks: Sequence[Mapping]) -> list[str]:
    beside = _beside(tasks)
    head = ["task", "shots", "score", "better", "model", *(name.lower() for name in beside.values()), "n", "unparsed"]
    rule = ["---", "--:", "---", "---", *["--:"] * (len(beside) + 3)]
    rows = []
    for task in tasks:
        title = _cell(task["title"])
        if "skipped" in task:
            rows.append([title, task["shots"], f"skipped: {_cell(task['skipped'])}", *[""] * (len(beside) + 2), 0, ""])
        for score in task["scores"]:
            cells = [shown(score, score.get(key)) for key in beside]
            if score["untrained"] and score["untrained"]["n"] != task["n"]:
                cells[0] += f" (n {score['untrained']['n']})"
            n = f"{score['n']}{_notes(score, task, ' (', ')')}"
            named = [title, task["shots"], _cell(score["name"]), score["direction"]]
            rows.append([*named, shown(score, score), *cells, n, score["unparsed"]])
        if task.get("left_out"):
            why = f"left out: {_cell('; '.join(left_out(task)))}"
            rows.append([title, task["shots"], why, *[""] * (len(beside) + 4)])
    return [f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows)]


def _beside(tasks: Sequence[Mapping]) -> dict[str, str]:
    """What stands beside the model in a table: key of a score in results.json -> heading of its column."""
    columns = {"untrained": "Untrained", "chance": "Chance", "given": "Unchanged", "original": "Originals"}
    columns |= {"codec": "Codec", "text_model": "Text model", "published": "Published"}
    scores = [score for task in tasks for score in task["scores"]]
    absent = [key for key in ("given", "text_model", "published") if not any(score.get(key) for score in scores)]
    return {key: heading for key, heading in columns.items() if key not in absent}


def _sources(tasks: Sequence[Mapping]) -> list[str]:
    """Whose the published numbers are and where they stand, a sentence each."""
    found: dict[str, None] = {}
    for task in tasks:
        for score in task["scores"]:
            if published := score.get("published"):
                found[f"{task['title']}, {score['name']}: {published['of']} ({published['source']})"] = None
    return list(found)


def _html(results: Mapping, samples: Mapping, out: Path) -> str:
    together = comparison.compared(results)
    who = results.get("model") or results["codec"]
    name = "/".join(Path(who["source"]).parts[-2:])
    if together and "model" not in results:
        name = f"{len(results['codecs'])} codecs"
    facts = {
        "Suite": ", ".join(s["title"] for s in results["suites"]),
        "Date": results["date"].replace("T", " ").removesuffix("+00:00") + " UTC",
        "Size": f"{who['parameters'] / 1e6:.1f} M parameters",
        "Fingerprint": who["fingerprint"],
        "Codecs": ", ".join(codec["name"] for codec in results.get("codecs", ())),
        "Commit": results["git_commit"][:12] or "unknown",
        "Time": f"{results['seconds']:.0f} s on {results['machine']['cores']} cores",
    }
    if together and "model" not in results:
        del facts["Size"], facts["Fingerprint"]
    about = " ".join(s["about"] for s in results["suites"])
    budget = [AUDIO_BUDGET * max(1, len(results.get("codecs", ())) // 2)]
    by_task: dict[str, list[Mapping]] = {}  # one section for all numbers of shots
    for task in results["tasks"]:
        by_task.setdefault(task["task"], []).append(task)
    sections = "".join(
        comparison.html_section(group, samples, out, budget)
        if name in together
        else _section(group, samples, out, budget)
        for name, group in by_task.items()
    )
    alone = [task for task in results["tasks"] if task["task"] not in together]
    links = "".join(
        f'<a href="#{_e(entries[0]["task"])}">{_e(entries[0]["title"])}</a>' for entries in together.values()
    )
    overview = (f"<h2>All codecs</h2>{comparison.html_codecs(results)}<nav>{links}</nav>" if together else "") + (
        f"<h2>All scores</h2>{_legend()}{_table(alone, titles=True)}" if alone else ""
    )
    certainty = told_apart(results["tasks"])
    certainty = f'<p class="soft">{_e(certainty)}</p>\n' if certainty else ""
    about_numbers = _OF_CODECS if together and not alone else _OF_MODELS
    settings = html.escape(json.dumps({k: v for k, v in results.items() if k != "tasks"}, indent=2))
    return html_page(
        f"Evaluation of {name}", name, about, facts,
        f'{overview}\n<p class="soft">{about_numbers}</p>\n{_published(results)}\n{certainty}{sections}'
        + _titled("apart", "By what the answers are of", apart.ABOUT, apart.scores_apart(results))
        + _titled("judges", "The judges", judges.ABOUT, judges.judged_sounds(results)),
        f"<details><summary>How this was measured: settings, versions, machine</summary>\n<pre>{settings}</pre>"
        "</details>",
    )  # fmt: skip


def _published(results: Mapping) -> str:
    sources = _sources(results["tasks"])
    if not sources:
        return ""
    said = "Published numbers are of other models, and of data and judges that differ from these"
    return f'<p class="soft">{said}: {_e("; ".join(sources))}.</p>'


def _titled(name: str, title: str, about: str, table: Table | None) -> str:
    """A section of one table; "" without it."""
    if table is None:
        return ""
    return f'<section id="{name}"><h2>{title}</h2><p>{about}</p>{html_table(table)}</section>'


def _legend() -> str:
    empty = {"value": None, "stderr": None, "chance": None, "untrained": None, "original": None, "codec": None}
    at = {"value": 0.5}
    marks = {
        "model, with its standard error": empty | {"value": 0.5, "stderr": 0.3},
        "untrained model": empty | {"untrained": at},
        "chance": empty | {"chance": 0.5},
        "original recordings": empty | {"original": at},
        "through the codec": empty | {"codec": at},
    }
    pieces = []
    for label, score in marks.items():
        mark = figures.scale_svg(score, (0, 1)).replace("0 0 240 24", "95 0 50 24")
        pieces.append(f"<span>{mark}{label}</span>")
    return f'<div class="legend">{"".join(pieces)}<span>right is better</span></div>'


def _table(tasks: Sequence[Mapping], titles: bool) -> str:
    beside = _beside(tasks)
    columns = ("Model", *beside.values(), "n", "Unparsed")
    across = len(columns) + 1
    head = "".join(f"<th>{c}</th>" for c in columns)
    rows, seen = [], set()
    for task in tasks:
        new = task["task"] not in seen
        seen.add(task["task"])
        link = f'<a href="#{_e(task["task"])}">{_e(task["title"])}</a>' if titles and new else ""
        shots = f"{task['shots']} shot{'s' * (task['shots'] != 1)}"
        several = sum(other["task"] == task["task"] for other in tasks) > 1
        if "skipped" in task:
            why = f'<td class="skipped" colspan="{across}">not evaluated: {_e(task["skipped"])}</td>'
            rows.append(f'<tr class="first"><td class="name">{link}<small>{shots}</small></td>{why}</tr>')
        for i, score in enumerate(task["scores"]):
            name = f"{score['name']}, {shots}" if several or task["shots"] else score["name"]
            label = f"{link if i == 0 else ''}<small>{_e(name)}</small>"
            cells = [f'<td class="model">{_number(score, score, task["n"])}{_relative(score)}</td>']
            cells += [f"<td>{_number(score, score.get(key), task['n'])}{_whose(score, key)}</td>" for key in beside]
            unparsed = f"<td{' class=warn' if score['unparsed'] else ''}>{score['unparsed']}</td>"
            scale = figures.scale_svg(score, _limits(score))
            rows.append(
                f'<tr{" class=first" if i == 0 and new else ""}><td class="name">{label}</td><td>{scale}</td>'
                f"{''.join(cells)}<td>{score['n']}{_notes(score, task, '<small>', '</small>')}</td>{unparsed}</tr>"
            )
        if task.get("left_out"):
            rows.append(f'<tr><td class="name"></td><td class="skipped" colspan="{across}">left out: '
                        f"{_e('; '.join(left_out(task)))}</td></tr>")  # fmt: skip
    head = f'<tr><th class="name">{"Task" if titles else "Score"}</th><th></th>{head}</tr>'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _whose(score: Mapping, key: str) -> str:
    """Whose a published number is."""
    return f"<small>{_e(score[key]['of'])}</small>" if key == "published" and score.get(key) else ""


def _number(score: Mapping, value: Mapping | float | None, n: int) -> str:
    text = _e(shown(score, value))
    if " ± " in text:
        text = text.replace(" ± ", '<span class="pm"> ± ') + "</span>"
    fewer = isinstance(value, Mapping) and value is not score and value.get("n", n) != n
    return text + (f"<small>of {value['n']}</small>" if fewer else "")


def _relative(score: Mapping) -> str:
    """The score as a share of that of the original recordings."""
    original = score["original"] and score["original"]["value"]
    if not original or score["value"] is None or score["direction"] == "lower":
        return ""
    return f"<small>{100 * score['value'] / original:.0f} % of originals</small>"


def _limits(score: Mapping) -> tuple[float, float]:
    """Values at the left and the right end of a score's scale; the right end is the better one."""
    beside = (score, *(score.get(key) for key in ("untrained", "chance", "given", "original", "codec")))
    found = [v["value"] if isinstance(v, Mapping) else v for v in beside]
    values = [value for value in found if value is not None]
    low, top = min([0.0, *values]), max([0.0, *values]) or 1.0
    if score["percent"] or score["metric"] == "stoi":
        top = 1.0
    return (low, top) if score["direction"] == "higher" else (top, low)


def _section(group: Sequence[Mapping], samples: Mapping, out: Path, budget: list[int]) -> str:
    """A task at all its numbers of shots."""
    task = group[0]
    judged = "".join(
        f"<p class='soft'><b>{_e(s['name'])}</b>: {_e(s['about'])}</p>" for s in task["scores"] if s["about"]
    )
    each = SHOWN if len(group) == 1 else SHOWN // 2
    cards = "".join(_card(entry, sample, out, budget) for entry in group for sample in samples[_key(entry)][:each])
    return (
        f'<section id="{_e(task["task"])}"><div class="eyebrow">{_e(task["task"])}, version {task["version"]}</div>'
        f"<h2>{_e(task['title'])}</h2><p>{_e(task['about'])}</p>{_table(group, titles=False)}{judged}{_by_shots(group)}"
        f'<div class="samples">{cards}</div></section>'
    )


def _by_shots(group: Sequence[Mapping]) -> str:
    """A plot of each score of a task over its numbers of examples; "" with one number alone."""
    by_name: dict[str, list[tuple[int, Mapping]]] = {}
    for entry in group:
        for score in entry["scores"]:
            if score["value"] is not None:
                by_name.setdefault(score["name"], []).append((entry["shots"], score))
    plots = []
    for name, found in by_name.items():
        points = [
            Point(name, shots, s["value"], s["stderr"] or 0.0, shown(s, s["value"]))
            for shots, s in sorted(found, key=lambda x: x[0])
        ]
        if len(points) > 1:
            plots.append(shots_plot(found[0][1], points, found[0][1]["chance"]))
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def _card(task: Mapping, sample: Mapping, out: Path, budget: list[int]) -> str:
    shots = f" · {task['shots']} shot{'s' * (task['shots'] != 1)}" if task["shots"] else ""
    given = " ".join(sample["given"][-6:] if task["shots"] else sample["given"])
    lines = []
    if given:
        lines.append(("given", _e(("… " if task["shots"] and len(sample["given"]) > 6 else "") + given)))
    if sample["expected"]:
        lines.append(("expected", _e(sample["expected"])))
    if sample["answer"] is not None:
        lines.append(("answer", _marked(sample, task)))
    for name, prediction in sample["predictions"].items():
        if prediction["read"] is None:
            continue
        right = normalise_words(prediction["read"]) == normalise_words(prediction["reference"] or "")
        mark = f'<span class="{"right" if right else "wrong"}">{_e(prediction["read"]) or "(nothing)"}</span>'
        if prediction["read"] != sample["answer"]:
            lines.append((name, mark))
        elif lines[-1] == ("answer", _e(prediction["read"])):  # nothing marked in it yet
            lines[-1] = ("answer", mark)
    if sample["reason"] not in ("end", "scored"):
        lines.append(("ended by", _e({"max_rows": "the length limit", "context": "a full context"}[sample["reason"]])))
    sounds = []
    if sample["answer"] is None and not sample.get("audio") and sample["reason"] != "scored":
        lines.append(("answer", '<span class="wrong">no audio</span>'))
    if sample.get("recording_given"):
        sounds.append(_sound("given", _waveform(sample["recording_given"]), budget))
    if sample["reason"] != "scored":
        sounds.append(_sound("original recording", _waveform(sample["path"]), budget))
    if sample.get("audio"):
        sounds.append(_sound("answer", _waveform(out / sample["audio"]), budget))
    listed = "".join(f"<dt>{_e(key)}</dt><dd>{value}</dd>" for key, value in lines)
    return (
        f'<article class="sample"><div class="path">{_e(sample["id"])}{shots}</div><dl class="said">{listed}</dl>'
        f'<div class="sounds">{"".join(sounds)}</div></article>'
    )


def _marked(sample: Mapping, task: Mapping) -> str:
    """The answer; where words are compared, with the differences from what was expected marked."""
    long = max(len(sample["answer"]), len(sample["expected"])) > LONGEST
    if long or not any(s["metric"] == "wer" for s in task["scores"]) or not normalise_words(sample["expected"]):
        return _e(sample["answer"]) or '<span class="wrong">(empty)</span>'
    expected, answer = normalise_words(sample["expected"]).split(), normalise_words(sample["answer"]).split()
    pieces = []
    for chunk in jiwer.process_words(" ".join(expected), " ".join(answer)).alignments[0]:
        deleted = _e(" ".join(expected[chunk.ref_start_idx : chunk.ref_end_idx]))
        inserted = _e(" ".join(answer[chunk.hyp_start_idx : chunk.hyp_end_idx]))
        if chunk.type == "equal":
            pieces.append(inserted)
        else:
            pieces.append(
                (f"<del>{deleted}</del> " if deleted else "") + (f"<ins>{inserted}</ins>" if inserted else "")
            )
    return " ".join(pieces) or '<span class="wrong">(empty)</span>'
