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

from lm.generation.step_graph import Step, capture

# How the steps of a batch run: one operation after the other; captured as a graph; compiled by torch.
Steps = Literal["plain", "graph", "compiled"]

_WARM_UP = 2  # steps before one is captured


def steps_for(steps: Steps | None, device: torch.device) -> Steps:
    """The steps that were asked for; None: graphs on a GPU, plain ones elsewhere."""
    return steps or ("graph" if device.type == "cuda" else "plain")


def static_step(steps: Steps, run: Any, shape: Sequence[int], device: torch.device) -> StaticStep | None:
    """The step of a run; None: plain ones need none. Arguments as for StaticStep."""
    kind = {"plain": None, "graph": GraphStep, "compiled": CompiledStep}[steps]
    return kind and kind(run, shape, device)


class StaticStep(ABC):
    """Feeds a row and draws the next one, at addresses that stay."""

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        """
        Args:
            run: A batch being generated (`feed`, `draw`, `static_state`, `decoder`), whose decoder is static.
            shape: Of the ids of a row of all its requests, (B,) text or (B, 8) audio.
            device: Where the run's tensors lie.
        """
        self._run = run
        self._ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self._uniform = torch.zeros(shape, device=device)
        self._finished = torch.zeros(shape[0], dtype=torch.bool, device=device)

    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The last rows (B, ...) and noise (B, ...) -> the next rows (B, ...), and which requests ended (B,) bool."""
        self._ids.copy_(ids)
        self._uniform.copy_(uniform)
        self._advance()
        return self._ids, self._finished

    @abstractmethod
    def _advance(self) -> None:
        """Change the ids into the next ones."""


class GraphStep(StaticStep):
    """A step that is captured as a graph once the first ones have run.

    It attends to the columns that are filled, rounded up: it is captured again whenever these become too few.
    """

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        super().__init__(run, shape, device)
        self._steps = 0
        self._aside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._replay: Step | None = None

    def _advance(self) -> None:
        if self._run.decoder.cover(self._steps + 1):
            self._replay = None
        self._steps += 1
        if self._steps <= _WARM_UP:
            self._warm_up()
        elif self._replay is None:
            self._replay = capture(self._step, self._ids.device)
        else:
            self._replay()

    def _step(self) -> None:
        _step(self._run, self._ids, self._uniform, self._finished)

    def _warm_up(self) -> None:
        if self._aside is None:
            return self._step()
        self._aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._aside):
            self._step()
        torch.cuda.current_stream().wait_stream(self._aside)


class CompiledStep(StaticStep):
    """A step that torch compiles, and on an accelerator captures."""

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        super().__init__(run, shape, device)
        for tensor in (self._ids, self._uniform, self._finished, *run.static_state()):
            torch._dynamo.mark_static_address(tensor)

    def _advance(self) -> None:
        _compiled(self._ids.device.type)(self._run, self._ids, self._uniform, self._finished)


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
