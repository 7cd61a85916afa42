"""One row as one unit: the groups of layers, of audio the eight depth steps and the grammar too, and sampling.

Everything a step reads or changes has the same shape in all steps: caches are written at a position held in a tensor,
hidden columns are masked, and requests that have ended stay in the batch. So the unit can be captured as a graph, or
compiled by torch.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
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
            run: A batch being generated (`feed`, `draw`, `static_state`, `decoder`, `sampling`), whose decoder is
                static. It is not held: it holds its step, and caches would stay until Python looks for such circles.
            shape: Of the ids of a row of all its requests, (B,) text or (B, 8) audio.
            device: Where the run's tensors lie.
        """

    @abstractmethod
    def __call__(self, run: Any, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The next row of a run.

        Args:
            run: That of construction.
            ids: The last rows (B, ...).
            uniform: Noise (B, ...) in [0, 1).

        Returns:
            The next rows (B, ...), and which requests ended with them (B,) bool.
        """


class GraphStep(StaticStep):
    """A step that is captured as a graph once the first ones have run.

    It attends to the columns that are filled, rounded up: there is a graph for every such number, and for every form of
    sampling.
    """

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        self._graphs: dict[Hashable, Captured] = {}

    def __call__(self, run: Any, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        key = run.decoder.cover(), run.sampling.form
        if key not in self._graphs:
            self._graphs[key] = Captured(partial(_next_row, weakref.proxy(run)), warm_up=2)
        return self._graphs[key](ids, uniform)


def _next_row(run: Any, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    drawn: tuple[Tensor, Tensor] = run.draw(run.feed(ids), uniform)
    return drawn


class CompiledStep(StaticStep):
    """A step that torch compiles, and on an accelerator captures."""

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        self._ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self._uniform = torch.zeros(shape, device=device)
        self._finished = torch.zeros(shape[0], dtype=torch.bool, device=device)
        for tensor in (self._ids, self._uniform, self._finished, *run.static_state(), *run.sampling.tensors()):
            torch._dynamo.mark_static_address(tensor)

    def __call__(self, run: Any, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        self._ids.copy_(ids)
        self._uniform.copy_(uniform)
        _compiled(ids.device.type)(run, self._ids, self._uniform, self._finished)
        return self._ids, self._finished


def _step(run: Any, ids: Tensor, uniform: Tensor, finished: Tensor) -> None:
    drawn, ended = _next_row(run, ids, uniform)
    ids.copy_(drawn)
    finished.copy_(ended)


@cache
def _compiled(device: str) -> Callable[..., None]:
    mode = "reduce-overhead" if device == "cuda" else None  # the mode that captures graphs
    return torch.compile(  # type: ignore[call-overload]  # recompile_limit is not in its stubs
        _step, fullgraph=True, dynamic=False, mode=mode, recompile_limit=64
    )
