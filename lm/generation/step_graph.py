"""A step as a graph: what it does to tensors is noted once, and done again without the Python around it.

Launching a row's thousand small kernels from Python takes three times as long as they run. A CUDA graph launches them
as one. Elsewhere a recording stands in for it, which does the same operations on the same tensors: slower than the step
itself, but it shows on any machine whether a step is fit for a graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Step = Callable[[], None]

_UNFIT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def capture(step: Step, device: torch.device) -> Step:
    """Run a step once, and return what does the same to the same tensors.

    Args:
        step: Reads and changes tensors that stay where they are, and no other state. On a GPU it has run before, since
            libraries make their workspaces at first use.
        device: Where its tensors lie.

    Raises:
        RuntimeError: The step asks the device for a value, or for a shape that depends on one.
    """
    if device.type != "cuda":
        return _Recording(step).replay
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()  # capturing alone computes nothing
    return graph.replay


class _Recording(TorchDispatchMode):
    """The operations of a step, in their order."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []
        with self:
            step()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Indices have a shape of their own, unless they are masks.
        by_place = func is torch.ops.aten.index.Tensor and all(i is None or i.dtype == torch.int64 for i in args[1])
        if _UNFIT & set(func.tags) and not by_place:
            raise RuntimeError(f"a step with {func} is not fit for a graph: its result depends on values on the device")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or changed in place
                    old.copy_(new)
