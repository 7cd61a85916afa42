"""One row as one compiled unit: the groups of layers, of audio the eight depth steps and the grammar too, and sampling.

Everything a step reads or changes has the same shape in all steps: caches are written at a position held in a tensor,
hidden columns are masked, and requests that have ended stay in the batch. On an accelerator the unit is captured as one
graph, which changes state at fixed addresses only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor


class CompiledStep:
    """Feeds a row and draws the next one."""

    def __init__(self, run: Any, shape: Sequence[int], device: torch.device):
        """
        Args:
            run: A batch being generated (`feed`, `draw`, `static_state`), whose decoder is static.
            shape: Of the ids of a row of all its requests, (B,) text or (B, 8) audio.
            device: Where the run's tensors lie.
        """
        self._run = run
        self._ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self._uniform = torch.zeros(shape, device=device)
        self._finished = torch.zeros(shape[0], dtype=torch.bool, device=device)
        for tensor in (self._ids, self._uniform, self._finished, *run.static_state()):
            torch._dynamo.mark_static_address(tensor)

    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The last rows (B, ...) and noise (B, ...) -> the next rows (B, ...), and which requests ended (B,) bool."""
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
