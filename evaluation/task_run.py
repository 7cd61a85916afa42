"""One task at one number of shots: items, answers, readings, scores, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.errors import UserError
from evaluation.answers import Answer, CodecRespondent, ModelRespondent, flac
from evaluation.items import Item, Questions
from evaluation.metrics import METRICS
from evaluation.scoring import Reading, Scorer
from evaluation.task import Score, Task

Respondent = ModelRespondent | CodecRespondent


def evaluate_task(
    task: Task, shots: int, questions: Questions, scorer: Scorer, trained: Respondent, untrained: Respondent | None,
    limit: int | None, untrained_limit: int, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Ask, read and score: the task's entry in results.json, with its samples under "samples".

    trained, untrained: who is asked; the untrained one answers the first `untrained_limit` items only
    A task that finds no clips, or whose requests do not fit the model's context, gives an entry that says so.
    """
    entry = {
        "task": task.task, "version": task.version, "fingerprint": task.fingerprint, "title": task.title,
        "about": task.about, "shots": shots, "generation": asdict(task.generation),
    }  # fmt: skip
    try:
        items = questions.items(task, shots, limit)
        answers, readings = _answer_and_read(task, items, scorer, trained)
    except UserError as error:  # no such clips, or longer than the model's context: said in every table
        return entry | {"n": 0, "skipped": str(error), "scores": []}
    few = items[:untrained_limit]
    untrained_readings = (
        _answer_and_read(task, few, scorer, untrained)[1] if untrained and few else [None] * len(task.scores)
    )
    scores, heard = [], []
    for score, reading, fresh in zip(task.scores, readings, untrained_readings, strict=True):
        original = scorer.read_originals(task, score, items)
        coded = None if task.is_reconstruction else scorer.read_originals(task, score, items, trained.speaker)
        scores.append(_score_entry(score, reading, fresh, scorer.chance(score, items), original, coded))
        heard.append((score, reading, original))
    entry |= {"n": len(items), "scores": scores}
    entry["samples"] = _write_samples(entry, items, answers, heard, trained, out)
    return entry


def _answer_and_read(
    task: Task, items: Sequence[Item], scorer: Scorer, who: Respondent
) -> tuple[list[Answer], list[Reading]]:
    if all(score.judge == "likelihood" for score in task.scores):
        surprise = who.surprise(task, items)
        nothing = [Answer(None, "scored") for _ in items]
        return nothing, [scorer.likelihood(score, items, surprise) for score in task.scores]
    answers = who.answer(task, items)
    return answers, [
        scorer.read_choices(task, score, items, who)
        if score.judge == "likeliest"
        else scorer.read_answers(task, score, items, answers, who.speaker)
        for score in task.scores
    ]


def _score_entry(
    score: Score, reading: Reading, fresh: Reading | None, chance: float | None, original: Reading | None,
    coded: Reading | None,
) -> dict[str, Any]:  # fmt: skip
    def plain(of: Reading | None) -> dict[str, Any] | None:
        return None if of is None else asdict(of.estimate) | {"unparsed": of.unparsed}

    metric = METRICS[score.metric]
    return {
        "name": score.name, "metric": score.metric, "judge": score.judge, "about": score.about, "unit": metric.unit,
        "direction": metric.direction, "percent": metric.percent,
        **plain(reading), "chance": chance, "untrained": plain(fresh), "original": plain(original),
        "codec": plain(coded),
    }  # fmt: skip


def _write_samples(
    entry: dict[str, Any], items: Sequence[Item], answers: Sequence[Answer],
    heard: Sequence[tuple[Score, Reading, Reading | None]], who: Respondent, out: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    """What was asked, answered and read, item by item; the answers' audio goes to out/audio/TASK-SHOTS/."""
    samples = []
    waveforms = who.speaker.waveforms([answer.tokens for answer in answers])
    folder = out / "audio" / f"{entry['task']}-{entry['shots']}"
    for i, (item, answer, waveform) in enumerate(zip(items, answers, waveforms, strict=True)):
        sample = {
            "task": entry["task"], "shots": entry["shots"], "id": item.id, "path": item.clip.path,
            "given": [s.content if s.is_text else f"<{s.role}>" for s in item.sentence.segments],
            "expected": item.answer if isinstance(item.answer, str) else item.clip.text or item.clip.caption,
            "answer": answer.text, "reason": answer.reason,
            "readings": {
                score.name: {
                    "read": _short(reading.readings[i]), "reference": _short(reading.references[i]),
                    "original": original and _short(original.readings[i]),
                }
                for score, reading, original in heard
            },
        }  # fmt: skip
        if waveform is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{item.id}.flac".replace("/", "_")
            path.write_bytes(flac(waveform))
            sample["audio"] = str(path.relative_to(out))
        samples.append(sample)
    return samples


def _short(reading: Any) -> str | None:
    return reading if isinstance(reading, str) else None
