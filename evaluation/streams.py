"""A task over the tokens of a codec that lacks a stream which the task names: what is asked of that stream changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from codec.streams import ALL_STREAMS, is_absent
from evaluation.task import EvalTask
from lm.generation.settings import STREAM_SETTINGS, without_absent_streams


class FittedTask(NamedTuple):
    """A task that a codec's tokens can serve."""

    # the task, the same where nothing had to change
    task: EvalTask
    # what was changed, in words that also name the stream; none where nothing was
    changes: tuple[str, ...]


def fit_to_streams(task: EvalTask, streams: Sequence[str]) -> FittedTask:
    """The task for tokens of these streams: examples as whole audio, no settings of streams that are not there.

    Raises:
        UserError: The task names a stream that no kind of codec has.
    """
    changes: list[str] = []
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
        changes += [f"no {key}, since the codec has no such stream" for key in absent]
    return FittedTask(task, tuple(changes))


def summary(fitted: Sequence[FittedTask]) -> list[str]:
    """A line for each change, with the tasks that it holds for."""
    tasks: dict[str, list[str]] = {}
    for task, changes in fitted:
        for change in changes:
            tasks.setdefault(change, []).append(task.task)
    return [f"{', '.join(dict.fromkeys(names))}: {change}" for change, names in tasks.items()]
