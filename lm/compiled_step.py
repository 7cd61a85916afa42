"""One row of audio as one compiled unit: the three groups of layers, the eight depth steps, sampling and grammar.

Everything a step reads or changes has the same shape in all steps: caches are written at a position held in a tensor,
hidden columns are masked, and requests that have ended stay in the batch. On an accelerator the unit is captured as one
graph, which changes state at fixed addresses only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from codec.tokens import NUM_CODEBOOKS


class CompiledStep:
    """Feeds a frame and draws the next one."""

    def __init__(self, run: Any, requests: int, device: torch.device):
        """run: a batch of audio being generated (`feed`, `draw`), whose decoder is static"""
        self._run = run
        self._ids = torch.zeros(requests, NUM_CODEBOOKS, dtype=torch.int64, device=device)
        self._uniform = torch.zeros(requests, NUM_CODEBOOKS, device=device)
        self._finished = torch.zeros(requests, dtype=torch.bool, device=device)
        grammar, depth = run.grammar, run.frames.layers
        state = [self._ids, self._uniform, self._finished, grammar.phase, grammar.frames, grammar.opening]
        for tensor in (*state, depth.keys, depth.values, *run.decoder.static_state()):
            torch._dynamo.mark_static_address(tensor)

    def __call__(self, ids: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The last frames (B, 8) and noise (B, 8) -> the next frames (B, 8), and which requests ended (B,) bool."""
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
    return torch.compile(_step, fullgraph=True, dynamic=False, mode=mode, recompile_limit=64)
