"""The precision that a model computes in: autocast that holds inside DeepSpeed, and a look whether it does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "mixed", "fp16", "bf16"]
AUTOCAST = {"mixed": torch.bfloat16, "fp16": torch.float16}  # weights stay in float32, products are in 16 bits
_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d)  # what autocast computes in 16 bits


class Computing:
    """Has a model compute in a precision while `applied`, and only then.

    DeepSpeed's engine turns an autocast that is entered around it off on GPUs, so it is entered by hooks of the model
    itself. The first pass through the model looks at what its matrices give.

    Args:
        model: That is computed.
        precision: Of the recipe.
        device: Type of the device it is on.
    """

    def __init__(self, model: nn.Module, precision: Precision, device: str) -> None:
        self.precision, self.device = precision, device
        self._is_applied, self._is_seen = False, False
        self._open: list[contextlib.AbstractContextManager[Any]] = []
        if device == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self._in_16_bits = AUTOCAST.get(precision)
        if self._in_16_bits is not None:
            model.register_forward_pre_hook(self._enter)
            model.register_forward_hook(self._leave, always_call=True)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """What passes through the model inside is computed in the precision.

        Raises:
            RuntimeError: It was not: a fault of this program or of a library.
        """
        self._is_applied = True
        try:
            if self._is_seen:
                yield
                return
            with _given(model) as given:
                yield
            self._is_seen = bool(given)
            self._require(given)
        finally:
            self._is_applied = False

    def _require(self, given: set[torch.dtype]) -> None:
        wanted = torch.bfloat16 if self.precision == "bf16" else AUTOCAST.get(self.precision, torch.float32)
        if given and wanted not in given:  # parts of a model may be kept in another precision
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in given))
            raise RuntimeError(
                f"engine.precision is {self.precision}, and the model's matrices gave {names} on {self.device}: "
                "please report this with the versions of torch and deepspeed"
            )

    def _enter(self, module: nn.Module, args: Any) -> None:
        context = torch.autocast(self.device, self._in_16_bits) if self._is_applied else contextlib.nullcontext()
        context.__enter__()
        self._open.append(context)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.pop().__exit__(None, None, None)


@contextlib.contextmanager
def _given(model: nn.Module) -> Iterator[set[torch.dtype]]:
    """The types of what the model's matrices give, collected inside."""
    given: set[torch.dtype] = set()

    def look(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            given.add(output.dtype)

    hooks = [module.register_forward_hook(look) for module in model.modules() if isinstance(module, _MATRICES)]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
