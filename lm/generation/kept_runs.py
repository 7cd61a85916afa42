"""Runs that outlive their call: caches, and the graphs captured over them, that the next requests use again.

A graph costs as much as several rows to capture. One is kept for each size of batch, rounded up, and serves whatever
prompts, lengths, seeds, temperatures and guidance come.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lm.generation.batch import Run
from lm.generation.generative_model import GenerativeModel
from lm.generation.settings import GenerationSettings
from lm.generation.static_step import Steps, steps_for
from lm.rows import Rows

R = TypeVar("R", bound=Run)

SHARE_OF_GPU = 1 / 8  # of its memory, that kept caches may take
ELSEWHERE = 2**28  # bytes

_KEPT: WeakKeyDictionary[nn.Module, KeptRuns] = WeakKeyDictionary()


class KeptRuns:
    """The runs kept for one model. The one that was not in use for longest goes first."""

    def __init__(self, most_bytes: int) -> None:
        """
        Args:
            most_bytes: Of their caches together.
        """
        self._most = most_bytes
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()
        self._weights: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def bytes(self) -> int:
        """Of all caches."""
        return sum(run.bytes for run in self._runs.values())

    def clear(self) -> None:
        """Free all."""
        self._runs.clear()

    def take(self, key: Hashable, weights: tuple[int, ...]) -> Run | None:
        """The run kept under a key, which is the caller's now; None: there is none, or not of these weights."""
        if weights != self._weights:  # a graph reads the weights where they lay
            self.clear()
            self._weights = weights
        return self._runs.pop(key, None)

    def give(self, key: Hashable, run: Run, weights: tuple[int, ...]) -> None:
        """Keep a run, if there is room for it and it is of the weights that were asked for last."""
        run.serve(None)  # the model would never go
        if weights != self._weights or run.bytes > self._most:
            return
        self._runs[key] = run
        self._runs.move_to_end(key)  # another of two at once may have given one back before
        while self.bytes > self._most:
            self._runs.popitem(last=False)


@contextmanager
def run_of(
    kind: type[R],
    model: GenerativeModel,
    prompts: Sequence[Rows],
    settings: GenerationSettings,
    seeds: Sequence[int],
    negatives: Sequence[Rows] = (),
    steps: Steps | None = None,
) -> Iterator[R]:
    """A run of these requests; with graphs one that was kept, where it fits. Arguments as for `Run`."""
    if steps_for(steps, model.device) != "graph":
        yield kind(model, prompts, settings, seeds, negatives, steps)
        return
    count, size = len(prompts), 1 << (len(prompts) - 1).bit_length()
    prompts, negatives = _filled(prompts, size), _filled(negatives, size)
    seeds = [*seeds, *[0] * (size - count)]
    key, weights = (kind, size, bool(negatives)), _weights(model)
    kept = _KEPT.setdefault(cast(nn.Module, model), KeptRuns(_most_bytes(model.device)))
    run = cast(R | None, kept.take(key, weights))
    if run is not None:
        run.serve(model)
    if run is not None and run.fits(prompts, negatives, settings):
        run.restart(prompts, settings, seeds, negatives, count)
    else:
        run = None  # gone before the larger one is made
        with suppress(torch.OutOfMemoryError):
            run = kind(model, prompts, settings, seeds, negatives, "graph", count)
        if run is None:  # what is only kept gives way; not while an error still holds what was made of the first
            kept.clear()
            run = kind(model, prompts, settings, seeds, negatives, "graph", count)
    try:
        yield run
    except GeneratorExit:  # nobody listens any more: the run is as good as before
        kept.give(key, run, weights)
        raise
    kept.give(key, run, weights)


def forget_runs(model: GenerativeModel) -> None:
    """Free what is kept for a model."""
    _KEPT.pop(cast(nn.Module, model), None)


def _filled(prompts: Sequence[Rows], size: int) -> Sequence[Rows]:
    """With the shortest again and again up to `size`; none stays none."""
    return [*prompts, *[min(prompts, key=len)] * (size - len(prompts))] if prompts else prompts


def _weights(model: GenerativeModel) -> tuple[int, ...]:
    """Where the weights lie."""
    module = cast(nn.Module, model)
    return tuple(tensor.data_ptr() for tensor in chain(module.parameters(), module.buffers()))


def _most_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return ELSEWHERE
    return int(SHARE_OF_GPU * torch.cuda.get_device_properties(device).total_memory)
