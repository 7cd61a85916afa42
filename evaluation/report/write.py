"""The files of a run: results.json, samples.jsonl, results.md, and report.html, which opens from disk by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.io.files import write_text
from codec.io.terminal import printable
from evaluation.report import figures
from evaluation.results_folder import REPORT, RESULTS, SAMPLES, TABLE
from evaluation.runner import flac
from lm.words import normalise_words

LONGEST = 2_000  # characters of a text in the report; samples.jsonl has all of it
SHOWN = 4  # samples of a task in the report: its first items, not its best
AUDIO_BUDGET = 6_000_000  # bytes of sound in the whole report; samples beyond it have pictures, but no player

_CSS = Path(__file__).with_name("report.css")


def write_report(results: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write all files of a run.

    Args:
        results: What was evaluated, with the tasks' entries and their samples.
        out: Folder to write into.

    Returns:
        What results.json holds: the results without the samples.
    """
    samples = {(t["task"], t["shots"]): t.pop("samples", []) for t in results["tasks"]}
    written = json.dumps(results, indent=1)
    write_text(out / SAMPLES, "".join(json.dumps(s) + "\n" for group in samples.values() for s in group))
    write_text(out / TABLE, markdown(results))
    write_text(out / REPORT, _html(results, samples, out))
    write_text(out / RESULTS, written + "\n")  # last: where it is, all is
    return json.loads(written)


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


def markdown(results: Mapping) -> str:
    """The table of all scores."""
    head = "| task | shots | score | better | model | untrained | chance | originals | codec | n | unparsed |"
    lines = [head, "|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for task in results["tasks"]:
        title = _cell(task["title"])
        if "skipped" in task:
            lines.append(f"| {title} | {task['shots']} | skipped: {_cell(task['skipped'])} | | | | | | | 0 | |")
        for score in task["scores"]:
            cells = [shown(score, value) for value in _values(score)]
            if score["untrained"] and score["untrained"]["n"] != task["n"]:
                cells[1] += f" (n {score['untrained']['n']})"
            n = f"{score['n']}{_notes(score, task, ' (', ')')}"
            row = [title, task["shots"], _cell(score["name"]), score["direction"], *cells, n, score["unparsed"]]
            lines.append("| " + " | ".join(map(str, row)) + " |")
    who = results.get("model") or results["codec"]
    lines += [
        "",
        f"{_cell(who['source'])} (fingerprint {who['fingerprint']}), {results['date']}, "
        f"commit {results['git_commit'] or 'unknown'}. "
        "± is one standard error. Originals and codec: the same judge on the original recordings and on the codec's "
        "reconstructions of them. Unparsed answers count as wrong. Of silence: items whose reference holds no word; "
        "silence is right there, and each recognised word counts as an error.",
        "",
    ]
    return "\n".join(lines)


def _notes(score: Mapping, task: Mapping, before: str, after: str) -> str:
    """Remarks on the number of items of a score; "" where there are none."""
    unreadable, empty = len(task.get("unreadable", [])), score.get("empty_references", 0)
    notes = [f"{empty} of silence"] if empty else []
    notes += [f"{unreadable} recording{'s' * (unreadable != 1)} unreadable"] if unreadable else []
    return before + ", ".join(notes) + after if notes else ""


def _cell(text: object) -> str:
    """Text in a cell of a Markdown table: on one line, without marks of the table or of HTML, not endless."""
    plain = html.escape(_shortened(" ".join(printable(text).split()), 300), quote=False)
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def _shortened(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"


def _values(score: Mapping) -> list[Mapping | float | None]:
    return [score, score["untrained"], score["chance"], score["original"], score["codec"]]


def _html(results: Mapping, samples: Mapping, out: Path) -> str:
    who = results.get("model") or results["codec"]
    name = "/".join(Path(who["source"]).parts[-2:])
    facts = {
        "Suite": ", ".join(s["title"] for s in results["suites"]),
        "Date": results["date"].replace("T", " ").removesuffix("+00:00") + " UTC",
        "Size": f"{who['parameters'] / 1e6:.1f} M parameters",
        "Fingerprint": who["fingerprint"],
        "Commit": results["git_commit"][:12] or "unknown",
        "Time": f"{results['seconds']:.0f} s on {results['machine']['cores']} cores",
    }
    listed = "".join(f"<div><dt>{_e(key)}</dt><dd>{_e(value)}</dd></div>" for key, value in facts.items())
    about = " ".join(s["about"] for s in results["suites"])
    budget = [AUDIO_BUDGET]
    by_task: dict[str, list[Mapping]] = {}  # one section for all numbers of shots
    for task in results["tasks"]:
        by_task.setdefault(task["task"], []).append(task)
    sections = "".join(_section(group, samples, out, budget) for group in by_task.values())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {_e(name)}</title>
<style>
{_CSS.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<div class="eyebrow">UniAudio evaluation</div>
<h1>{_e(name)}</h1>
<p class="soft">{_e(about)}</p>
<dl class="facts">{listed}</dl>
</header>
<main>
<h2>All scores</h2>
{_legend()}
{_table(results["tasks"], titles=True)}
<p class="soft">± is one standard error. The untrained model has the same configuration and random weights; where it
answered fewer items, their number is given. Chance is a guess among the possible answers or, for words and sounds, the
right answer of another item. <em>Originals</em> and <em>codec</em> give the same judge the original recordings and the
codec's reconstructions of them: no generated sound can be expected to score higher. Answers that name no label, or
several, are unparsed; they count as wrong and are never guessed.</p>
{sections}
</main>
<footer><details><summary>How this was measured: settings, versions, machine</summary>
<pre>{html.escape(json.dumps({k: v for k, v in results.items() if k != "tasks"}, indent=2))}</pre></details></footer>
</body>
</html>
"""


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
    columns = ("Model", "Untrained", "Chance", "Originals", "Codec", "n", "Unparsed")
    head = "".join(f"<th>{c}</th>" for c in columns)
    rows, seen = [], set()
    for task in tasks:
        new = task["task"] not in seen
        seen.add(task["task"])
        link = f'<a href="#{_e(task["task"])}">{_e(task["title"])}</a>' if titles and new else ""
        shots = f"{task['shots']} shot{'s' * (task['shots'] != 1)}"
        several = sum(other["task"] == task["task"] for other in tasks) > 1
        if "skipped" in task:
            rows.append(f'<tr class="first"><td class="name">{link}<small>{shots}</small></td>'
                        f'<td class="skipped" colspan="8">not evaluated: {_e(task["skipped"])}</td></tr>')  # fmt: skip
        for i, score in enumerate(task["scores"]):
            name = f"{score['name']}, {shots}" if several or task["shots"] else score["name"]
            label = f"{link if i == 0 else ''}<small>{_e(name)}</small>"
            cells = [f"<td>{_number(score, value, task['n'])}</td>" for value in _values(score)]
            cells[0] = f'<td class="model">{_number(score, score, task["n"])}{_relative(score)}</td>'
            unparsed = f"<td{' class=warn' if score['unparsed'] else ''}>{score['unparsed']}</td>"
            scale = figures.scale_svg(score, _limits(score))
            rows.append(
                f'<tr{" class=first" if i == 0 and new else ""}><td class="name">{label}</td><td>{scale}</td>'
                f"{''.join(cells)}<td>{score['n']}{_notes(score, task, '<small>', '</small>')}</td>{unparsed}</tr>"
            )
    head = f'<tr><th class="name">{"Task" if titles else "Score"}</th><th></th>{head}</tr>'
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _number(score: Mapping, value: Mapping | float | None, n: int) -> str:
    text = _e(shown(score, value))
    if " ± " in text:
        text = text.replace(" ± ", '<span class="pm"> ± ') + "</span>"
    fewer = isinstance(value, Mapping) and value is not score and value["n"] != n
    return text + (f"<small>of {value['n']}</small>" if fewer else "")


def _relative(score: Mapping) -> str:
    """The score as a share of that of the original recordings."""
    original = score["original"] and score["original"]["value"]
    if not original or score["value"] is None or score["direction"] == "lower":
        return ""
    return f"<small>{100 * score['value'] / original:.0f} % of originals</small>"


def _limits(score: Mapping) -> tuple[float, float]:
    """Values at the left and the right end of a score's scale; the right end is the better one."""
    values = [v["value"] if isinstance(v, Mapping) else v for v in _values(score)]
    top = (
        1.0 if score["percent"] or score["metric"] == "stoi" else max([v for v in values if v is not None], default=1.0)
    ) or 1.0
    return (0.0, top) if score["direction"] == "higher" else (top, 0.0)


def _section(group: Sequence[Mapping], samples: Mapping, out: Path, budget: list[int]) -> str:
    """A task at all its numbers of shots."""
    task = group[0]
    judged = "".join(
        f"<p class='soft'><b>{_e(s['name'])}</b>: {_e(s['about'])}</p>" for s in task["scores"] if s["about"]
    )
    each = SHOWN if len(group) == 1 else SHOWN // 2
    cards = "".join(
        _card(entry, sample, out, budget) for entry in group for sample in samples[entry["task"], entry["shots"]][:each]
    )
    return (
        f'<section id="{_e(task["task"])}"><div class="eyebrow">{_e(task["task"])}, version {task["version"]}</div>'
        f"<h2>{_e(task['title'])}</h2><p>{_e(task['about'])}</p>{_table(group, titles=False)}{judged}"
        f'<div class="samples">{cards}</div></section>'
    )


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
    if sample["reason"] != "scored":
        sounds.append(_sound("original recording", _waveform(sample["path"]), budget))
    if sample.get("audio"):
        sounds.append(_sound("answer", _waveform(out / sample["audio"]), budget))
    listed = "".join(f"<dt>{_e(key)}</dt><dd>{value}</dd>" for key, value in lines)
    return (
        f'<article class="sample"><div class="path">{_e(sample["id"])}{shots}</div><dl class="said">{listed}</dl>'
        f'<div class="sounds">{"".join(sounds)}</div></article>'
    )


def _waveform(path: str | Path) -> np.ndarray | None:
    try:
        return load_audio(path).numpy()
    except UserError:  # moved since it was tokenised, or damaged: the report has a remark instead of failing
        return None


def _sound(caption: str, waveform: np.ndarray | None, budget: list[int]) -> str:
    if waveform is None or len(waveform) == 0:
        return f"<figure><figcaption>{caption}: its file is no longer there, or cannot be read</figcaption></figure>"
    content = flac(waveform)
    fits = len(content) <= budget[0]
    budget[0] -= len(content) if fits else 0
    sound = figures.player(content) if fits else "<p class='soft'>no player: the report's limit of sound is reached</p>"
    return (
        f"<figure><figcaption>{caption}, {figures.seconds(waveform)}</figcaption>{figures.waveform_svg(waveform)}"
        f"{figures.spectrogram_png(waveform)}{sound}</figure>"
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


def _e(text: object) -> str:
    """Text within HTML: harmless, and not endless."""
    return html.escape(_shortened(printable(text)))
