"""One row as one unit: the groups of layers, of audio the eight depth steps and the grammar too, and sampling.

Everything a step reads or changes has the same shape in all steps: caches are written at a position held in a tensor,
hidden columns are masked, and requests that have ended stay in the batch. So the unit can be captured as a graph, or
compiled by torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from codec.layers.graph import Captured

# How the steps of a batch run: one operation after the other; captured as a graph; compiled by torch.
Steps = Literal["plain", "graph", "compiled"]


def steps_for(steps: Steps | None, device: torch.device) -> Steps:
    """The steps that were asked for; None: graphs on a GPU, plain ones elsewhere."""
    return steps or ("graph" if device.type == "cuda" else "plain")


def static_step(steps: Steps, run: Any, shape: Sequence[int], device: torch.device) -> StaticStep | None:
    """The step of a run; None: plain ones need none. Arguments as for StaticStep."""
    kind = {"plain": None, "graph": GraphStep, "compiled": CompiledStep}[steps]
    return kind and kind(run, shape, device)


class StaticStep(ABC):
    """Feeds a row and draws the next one, at addresses that stay."""

    @abstractmethod
    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        """
        Args:
            run: A batch being generated (`feed`, `draw`, `static_state`, `decoder`), whose decoder is static.
            shape: Of the ids of a row of all its requests, (B,) text or (B, 8) audio.
            device: Where the run's tensors lie.
        """

    @abstractmethod
    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The last rows (B, ...) and noise (B, ...) -> the next rows (B, ...), and which requests ended (B,) bool."""


class GraphStep(StaticStep):
    """A step that is captured as a graph once the first ones have run.

    It attends to the columns that are filled, rounded up: it is captured again whenever these become too few.
    """

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        self._run, self._rows = run, 0
        self._captured = Captured(lambda ids, uniform: run.draw(run.feed(ids), uniform), warm_up=2)

    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        self._rows += 1
        if self._run.decoder.cover(self._rows):
            self._captured.forget()
        return self._captured(ids, uniform)


class CompiledStep(StaticStep):
    """A step that torch compiles, and on an accelerator captures."""

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        self._run = run
        self._ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self._uniform = torch.zeros(shape, device=device)
        self._finished = torch.zeros(shape[0], dtype=torch.bool, device=device)
        for tensor in (self._ids, self._uniform, self._finished, *run.static_state()):
            torch._dynamo.mark_static_address(tensor)

    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        self._ids.copy_(ids)
        self._uniform.copy_(uniform)
        _compiled(ids.device.type)(self._run, self._ids, self._uniform, self._finished)
        return self._ids, self._finished


def _step(run: Any, ids: Tensor, uniform: Tensor, finished: Tensor) -> None:
    drawn, ended = run.draw(run.feed(ids), uniform)
    ids.copy_(drawn)
    finished.copy_(ended)


@cache
def _compiled(device: str) -> Callable[..., None]:
    mode = "reduce-overhead" if device == "cuda" else None  # the mode that captures graphs
    return torch.compile(  # type: ignore[call-overload]  # recompile_limit is not in its stubs
        _step, fullgraph=True, dynamic=False, mode=mode, recompile_limit=64
    )
