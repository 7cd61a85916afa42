"""One task at one number of shots: items, answers, predictions, scores, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from codec.io.errors import UserError
from codec.io.files import file_name_of, replace_file
from evaluation.cache import CannotGoOn
from evaluation.items import Item, Questions
from evaluation.metrics.registry import METRICS
from evaluation.results_folder import AUDIO
from evaluation.runner import Answer, CodecRunner, ModelRunner, flac
from evaluation.scoring import Prediction, Scorer
from evaluation.task import Score, Task

Respondent = ModelRunner | CodecRunner


def evaluate_task(
    task: Task, shots: int, questions: Questions, scorer: Scorer, trained: Respondent, untrained: Respondent | None,
    limit: int | None, untrained_limit: int, out: Path,
) -> dict[str, Any]:  # fmt: skip
    """Ask, read and score: the task's entry in results.json, with its samples under "samples".

    trained, untrained: who is asked; the untrained one answers the first `untrained_limit` items only
    A task that finds no clips, or whose requests do not fit the model's context, gives an entry that says so. Where a
    recording is compared and cannot be read, its item is left out; where it is the ceiling, that is of fewer. Either is
    counted under "unreadable". Raises UserError where the system refuses to write.
    """
    entry = {
        "task": task.task, "version": task.version, "fingerprint": task.fingerprint, "title": task.title,
        "about": task.about, "shots": shots, "generation": asdict(task.generation),
    }  # fmt: skip
    try:
        items, unreadable = _with_recordings(task, questions.items(task, shots, limit))
        answers, predictions = _answer_and_read(task, items, scorer, trained)
        few = items[:untrained_limit]
        untrained_readings = (
            _answer_and_read(task, few, scorer, untrained)[1] if untrained and few else [None] * len(task.scores)
        )
        scores, heard = [], []
        for score, reading, fresh in zip(task.scores, predictions, untrained_readings, strict=True):
            original, coded = scorer.read_originals(task, score, items), None
            if not task.is_reconstruction:
                coded = scorer.read_reconstructions(task, score, items, trained.speaker)
            scores.append(_score_entry(score, reading, fresh, scorer.chance(score, items), original, coded))
            heard.append((score, reading, original))
        waveforms = trained.speaker.waveforms([answer.tokens for answer in answers])
    except CannotGoOn:
        raise
    except UserError as error:  # no such clips, or longer than the model's context: said in every table
        return entry | {"n": 0, "skipped": str(error), "scores": []}
    entry |= {"n": len(items), "scores": scores}
    if unreadable:
        entry["unreadable"] = unreadable
    entry["samples"] = _write_samples(entry, items, answers, heard, waveforms, out)
    return entry


def _with_recordings(task: Task, items: list[Item]) -> tuple[list[Item], list[dict[str, str]]]:
    """The items that can be asked, and those of the task whose recording cannot be read, with the reason.

    Raises UserError where none can be asked.
    """
    judges = {score.judge for score in task.scores}
    if not task.is_reconstruction and not judges & {"recogniser", "signal", "waveform"}:
        return items, []  # no recording is needed
    missing = [{"id": item.id, "why": item.unreadable} for item in items if item.unreadable]
    if task.is_reconstruction or "waveform" in judges:
        items = [item for item in items if not item.unreadable]
    if not items:
        raise UserError(
            f"none of the {len(missing)} recordings of the task '{task.task}' can be read ({missing[0]['why']}); say "
            "where they are with --corpus, or leave the task out"
        )
    return items, missing


def _answer_and_read(
    task: Task, items: Sequence[Item], scorer: Scorer, who: Respondent
) -> tuple[list[Answer], list[Prediction]]:
    if all(score.judge == "likelihood" for score in task.scores):
        negative_log_likelihood = who.negative_log_likelihood(task, items)
        nothing = [Answer(None, "scored") for _ in items]
        return nothing, [scorer.likelihood(score, items, negative_log_likelihood) for score in task.scores]
    answers = who.answer(task, items)
    return answers, [
        scorer.read_choices(task, score, items, who)
        if score.judge == "likeliest"
        else scorer.read_answers(task, score, items, answers, who.speaker)
        for score in task.scores
    ]


def _score_entry(
    score: Score, reading: Prediction, fresh: Prediction | None, chance: float | None, original: Prediction | None,
    coded: Prediction | None,
) -> dict[str, Any]:  # fmt: skip
    def plain(of: Prediction | None) -> dict[str, Any] | None:
        if of is None:
            return None
        return asdict(of.estimate) | {"unparsed": of.unparsed, "empty_references": of.empty_references}

    metric = METRICS[score.metric]
    return {
        "name": score.name, "metric": score.metric, "judge": score.judge, "about": score.about, "unit": metric.unit,
        "direction": metric.direction, "percent": metric.percent,
        **plain(reading), "chance": chance, "untrained": plain(fresh), "original": plain(original),
        "codec": plain(coded),
    }  # fmt: skip


def _write_samples(
    entry: dict[str, Any], items: Sequence[Item], answers: Sequence[Answer],
    heard: Sequence[tuple[Score, Prediction, Prediction | None]], waveforms: Sequence[np.ndarray | None], out: Path,
) -> list[dict[str, Any]]:  # fmt: skip
    """What was asked, answered and read, item by item; the answers' audio goes to out/audio/TASK-SHOTS/."""
    samples = []
    folder = out / AUDIO / file_name_of(f"{entry['task']}-{entry['shots']}")
    of_originals = [_by_item(items, original) for _, _, original in heard]
    for i, (item, answer, waveform) in enumerate(zip(items, answers, waveforms, strict=True)):
        sample = {
            "task": entry["task"], "shots": entry["shots"], "id": item.id, "path": item.clip.path,
            "given": [s.content if s.is_text else f"<{s.role}>" for s in item.sentence.segments],
            "expected": item.answer if isinstance(item.answer, str) else item.clip.text or item.clip.caption,
            "answer": answer.text, "reason": answer.reason,
            "predictions": {
                score.name: {
                    "read": _short(reading.predictions[i]), "reference": _short(reading.references[i]),
                    "original": _short(originals.get(item.id)),
                }
                for (score, reading, _), originals in zip(heard, of_originals, strict=True)
            },
        }  # fmt: skip
        if waveform is not None:
            path = folder / f"{file_name_of(item.id)}.flac"
            with replace_file(path) as temporary:
                temporary.write_bytes(flac(waveform))
            sample["audio"] = str(path.relative_to(out))
        samples.append(sample)
    return samples


def _by_item(items: Sequence[Item], original: Prediction | None) -> dict[str, Any]:
    """What was heard in the originals that can be read, by the id of the item."""
    if original is None:
        return {}
    readable = [item.id for item in items if not item.unreadable]
    return dict(zip(readable, original.predictions, strict=True))


def _short(reading: Any) -> str | None:
    return reading if isinstance(reading, str) else None
