"""One task at one number of shots: items, answers, scores, and their entry in the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from codec.io.errors import UserError
from codec.io.files import file_name_of, replace_file
from evaluation.cache import CannotGoOn
from evaluation.config import EvaluationConfig
from evaluation.items import Item, ItemBuilder, with_recordings
from evaluation.metrics.registry import METRICS
from evaluation.results_folder import AUDIO
from evaluation.runner import Answer, Runner, flac
from evaluation.scoring import Extractor, Prediction, ScoreRow, score_rows
from evaluation.task import EvalTask
from evaluation.token_measures.task_rows import measure_tokens


def evaluate_task(
    task: EvalTask, shots: int, config: EvaluationConfig, builder: ItemBuilder, extractor: Extractor, runner: Runner,
    untrained: Runner | None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate one task.

    A task that finds no clips, or whose requests do not fit the model's context, gives an entry with the reason.

    Args:
        task: The task.
        shots: Number of solved examples.
        config: Limits, and the folder that the answers' audio is written to.
        builder: Builds the items.
        extractor: Reads predictions out of answers.
        runner: The model or codec that is evaluated.
        untrained: The same untrained, which answers the first items only; None for no comparison.

    Returns:
        The entry in results.json, with the samples under "samples". Recordings that cannot be read are counted under
        "unreadable".

    Raises:
        UserError: The system refuses to read or to write.
    """
    entry = {
        "task": task.task, "version": task.version, "fingerprint": task.fingerprint, "title": task.title,
        "about": task.about, "shots": shots, "generation": asdict(task.generation),
    }  # fmt: skip
    if task.is_of_codec:
        entry["codec"] = runner.name
    try:
        if task.is_of_tokens:
            made = measure_tokens(task, builder, runner.tokenizer, runner.cache, config.limit)
            return entry | made | {"bits_per_second": runner.tested.bits_per_second}
        items, unreadable = with_recordings(task, builder.items(task, shots, config.limit))
        answers = runner.answer(task, items)
        few = items[: config.untrained_limit]
        compared = untrained.answer(task, few) if untrained and few else None
        rows, left_out = score_rows(task, items, answers, compared, runner, extractor)
    except CannotGoOn:
        raise
    except UserError as error:  # no such clips, or longer than the model's context: a reason in every table
        return entry | {"n": 0, "skipped": str(error), "scores": []}
    entry |= {"n": len(items), "scores": [_score_entry(row) for row in rows]}
    if task.is_reconstruction:
        entry["bits_per_second"] = runner.bits_per_second(items, answers)
    if left_out:
        entry["left_out"] = left_out
    if unreadable:
        entry["unreadable"] = unreadable
    several = f"-{runner.name}" if task.is_reconstruction and len(config.codec) > 1 else ""
    folder = Path(config.out) / AUDIO / file_name_of(f"{task.task}-{shots}{several}")
    return entry | {"samples": _write_samples(entry, items, answers, rows, folder)}


def _score_entry(row: ScoreRow) -> dict[str, Any]:
    def plain(prediction: Prediction | None) -> dict[str, Any] | None:
        if prediction is None:
            return None
        counts = {"unparsed": prediction.unparsed, "empty_references": prediction.empty_references}
        return asdict(prediction.estimate) | counts

    score, metric = row.score, METRICS[row.score.metric]
    return {
        "name": score.name, "metric": score.metric, "scorer": score.scorer, "about": score.about, "unit": metric.unit,
        "direction": metric.direction, "percent": metric.percent, **plain(row.model), "chance": row.chance,
        "untrained": plain(row.untrained), "original": plain(row.original), "codec": plain(row.codec),
        **({} if row.given is None else {"given": plain(row.given)}),
        **{sound: plain(prediction) for sound, prediction in row.floors.items()},
        **({"apart": {value: plain(part) for value, part in row.apart.items()}} if row.apart else {}),
        **({"published": score.published.entry(metric.percent)} if score.published else {}),
    }  # fmt: skip


def _write_samples(
    entry: dict[str, Any], items: Sequence[Item], answers: Sequence[Answer], rows: Sequence[ScoreRow], folder: Path
) -> list[dict[str, Any]]:
    """Request, answer and predictions of each item; the answers' audio goes to a folder in out/audio/."""
    samples = []
    of_originals = [_by_item(items, row.original) for row in rows]
    for i, (item, answer) in enumerate(zip(items, answers, strict=True)):
        sample = {
            "task": entry["task"], "shots": entry["shots"], "id": item.id, "path": item.clip.path,
            "given": [s.content if s.is_text else f"<{s.role}>" for s in item.sentence.segments],
            "expected": item.answer if isinstance(item.answer, str) else item.clip.text or item.clip.caption,
            "answer": answer.text, "reason": answer.reason,
            "predictions": {
                row.score.name: {
                    "read": _text_alone(row.model.predictions[i]), "reference": _text_alone(row.model.references[i]),
                    "original": _text_alone(originals.get(item.id)), "measured": _plain_pair(row.model.measured[i]),
                }
                for row, originals in zip(rows, of_originals, strict=True)
            },
        }  # fmt: skip
        if item.given is not None:
            sample["recording_given"] = item.given.path
        if "codec" in entry:
            sample["codec"] = entry["codec"]
        if answer.waveform is not None:
            path = folder / f"{file_name_of(item.id)}.flac"
            with replace_file(path) as temporary:
                temporary.write_bytes(flac(answer.waveform))
            sample["audio"] = path.relative_to(folder.parents[1]).as_posix()
        samples.append(sample)
    return samples


def _by_item(items: Sequence[Item], original: Prediction | None) -> dict[str, Any]:
    """Predictions of the originals that can be read, by the id of the item."""
    if original is None:
        return {}
    readable = [item.id for item in items if not item.unreadable]
    return dict(zip(readable, original.predictions, strict=True))


def _plain_pair(measured: tuple[float, float] | None) -> list[float] | None:
    """(amount, weight) as JSON can hold it; None where there is none, or where it is no number."""
    return [float(x) for x in measured] if measured is not None and np.all(np.isfinite(measured)) else None


def _text_alone(prediction: Any) -> str | None:
    return prediction if isinstance(prediction, str) else None
