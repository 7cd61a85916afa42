"""A task over the tokens of any codec: tasks name streams, and say in rows how long an answer may be.

The tasks of this project were written for ReasoningCodec. Another codec may lack a stream which they name, and takes
another number of rows for a second of sound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from auditory_sentences.builders.tasks import find_task
from codec.streams import ALL_STREAMS, StreamSpec, is_absent
from evaluation.task import EvalTask
from lm.generation.settings import STREAM_SETTINGS, without_absent_streams

ROWS_PER_SECOND = 17.5  # of ReasoningCodec's audio, for which the tasks' max_rows are chosen


class FittedTask(NamedTuple):
    """A task that a codec's tokens can serve."""

    # the task, the same where nothing had to change
    task: EvalTask
    # what was changed, in words that also name the stream; none where nothing was
    changes: tuple[str, ...]


def fit_to_streams(task: EvalTask, specs: Sequence[StreamSpec]) -> FittedTask:
    """The task for a codec's tokens.

    Examples that should be given as an absent stream are whole audio, settings of absent streams are left out, and
    where the codec takes more rows for a second, so may an answer in audio, unless the task limits it in seconds.

    Args:
        task: As its file has it.
        specs: Streams of the codec.

    Raises:
        UserError: The task names a stream that no kind of codec has.
    """
    changes: list[str] = []
    streams = [spec.name for spec in specs]
    classes = task.classification
    if classes and classes.examples_as != ALL_STREAMS:
        where = f"the task '{task.task}': classification.examples_as"
        if is_absent(classes.examples_as, streams, where):
            changes.append(f"examples as whole audio, since the codec has no {classes.examples_as} stream")
            task = replace(task, classification=replace(classes, examples_as=ALL_STREAMS))
    settings = {key: getattr(task.generation, key) for key in STREAM_SETTINGS}
    kept, absent = without_absent_streams(settings, streams, f"the task '{task.task}': generation")
    if absent:
        task = replace(task, generation=replace(task.generation, **{key: kept.get(key, {}) for key in STREAM_SETTINGS}))
        changes.append(f"no {' and '.join(absent)}, since the codec has no such stream")
    rate = sum(spec.rate for spec in specs)
    if rate > ROWS_PER_SECOND and _answers_with_audio(task) and task.generation.max_seconds is None:
        rows = math.ceil(task.generation.max_rows * rate / ROWS_PER_SECOND)
        task = replace(task, generation=replace(task.generation, max_rows=rows))
        changes.append(f"max_rows for as many seconds, since the codec takes {rate:g} rows a second")
    return FittedTask(task, tuple(changes))


def _answers_with_audio(task: EvalTask) -> bool:
    if task.classification or task.is_of_codec:
        return False
    return find_task(task.request).parts[-1].role == ALL_STREAMS


def stream_name(stream: str) -> str:
    """Name of a stream, or of all of a codec's together, as tables show it."""
    return "all streams" if stream == ALL_STREAMS else stream


def summary(fitted: Sequence[FittedTask]) -> list[str]:
    """A line for each change, with the tasks that it holds for."""
    tasks: dict[str, list[str]] = {}
    for task, changes in fitted:
        for change in changes:
            tasks.setdefault(change, []).append(task.task)
    return [f"{', '.join(dict.fromkeys(names))}: {change}" for change, names in tasks.items()]
