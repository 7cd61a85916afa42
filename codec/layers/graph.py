"""Work on tensors as a graph: what it does is noted once, and done again without the Python around it.

Launching a thousand small kernels from Python takes several times as long as they run. A CUDA graph launches them
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


class Captured:
    """A function of tensors whose shapes stay: called plainly a few times, then captured and replayed.

    What it returns lies in the same place every time, and holds until the next call.

    Args:
        function: Tensors -> a tensor or several. Beside its arguments it reads and changes nothing but tensors that
            stay where they are.
        warm_up: Plain calls; on a GPU the first makes the workspaces of libraries.
    """

    def __init__(self, function: Callable[..., Any], warm_up: int = 1) -> None:
        self._function, self._left = function, warm_up
        self._inputs: list[Tensor] = []
        self._output: Any = None
        self._replay: Step | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's value."""
        if not self._inputs:
            self._inputs = [torch.empty_like(tensor) for tensor in inputs]
        for mine, given in zip(self._inputs, inputs, strict=True):
            if mine.data_ptr() != given.data_ptr():
                mine.copy_(given)
        if self._left:
            self._left -= 1
            _aside(self._step, self._inputs[0].device)
        elif self._replay is None:
            self._replay = capture(self._step, self._inputs[0].device)
        else:
            self._replay()
        return self._output

    def _step(self) -> None:
        self._output = self._function(*self._inputs)


def _aside(step: Step, device: torch.device) -> None:
    """Run a step as its capture will, on a stream of its own where there are streams."""
    if device.type != "cuda":
        return step()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream(device).wait_stream(stream)


class _Recording(TorchDispatchMode):
    """The operations of a step, in their order."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], list[Any]]] = []
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
        if torch.Tag.inplace_view not in func.tags:  # it changes no value, and another shape only once
            # An alias keeps its shape whatever is done to that of the tensor.
            aliases = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(out)]
            self._calls.append((func, args, kwargs, aliases))
        return out

    def replay(self) -> None:
        for func, args, kwargs, before in self._calls:
            for old, new in zip(before, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or changed in place
                    old.copy_(new)
