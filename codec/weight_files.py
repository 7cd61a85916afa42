"""Weights from files that others made: safetensors, or pickles of which nothing but weights is taken.

A pickle can name any function to be called while it is read. Here only tensors, plain containers and the few types of
ALLOWED are built; a file that asks for anything else is refused, and nothing that it asks for is called.
"""

from __future__ import annotations

import argparse
import datetime
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.errors import UserError

# What training programs leave beside the weights: command-line arguments, times and numbers. They hold values, no code.
# Numbers of numpy carry the name that their numpy version wrote.
ALLOWED = [
    argparse.Namespace,
    datetime.timedelta,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "bool")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
]

_NESTS = ("model", "codec_model", "state_dict")  # keys under which published checkpoints keep their weights
_UNREADABLE = (RuntimeError, ValueError, EOFError, OSError, LookupError, TypeError, AttributeError)  # what torch raises
_PARALLEL = "module."  # prefix that a wrapped model leaves on every key


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, out of whatever it is nested in.

    Raises UserError where the file is missing or damaged, asks for code to be run, or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file of weights")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    state = _state_dict(content)
    if not state:
        raise UserError(
            f"{path}: holds no state dict, neither by itself nor under {', '.join(_NESTS)}; give a file of weights"
        )
    require_plain(path, state)
    if all(key.startswith(_PARALLEL) for key in state):
        state = {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error


def read_pickle(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU; those that nobody looks at are never copied into memory.

    Raises UserError where the file is damaged, or asks for code to be run or for a type that is not ALLOWED.
    """
    zipped = zipfile.is_zipfile(path)  # torch's form since 1.6; an older file cannot be looked into beforehand
    with torch.serialization.safe_globals(ALLOWED):
        try:
            foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if zipped else []
            if foreign:
                raise _refusal(path, ", ".join(foreign[:5]))
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except UnpicklingError as error:
            # torch's own advice (to read the file unsafely) is not passed on.
            named = re.search(
                r"GLOBAL (\S+)|function (.+?)(?: which|$)|Unsupported operand \d+", str(error), re.MULTILINE
            )
            if named:
                raise _refusal(path, named[0]) from error
            detail = "it holds what no checkpoint needs"
            raise UserError(f"{path}: damaged, or no torch checkpoint ({detail}); download it again") from error
        except _UNREADABLE as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: damaged, or no torch checkpoint ({detail}); download it again") from error


def require_plain(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError where a tensor is not simply its numbers in memory."""
    for key, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise UserError(f"{path}: '{key}' is a sparse, quantised or empty tensor; save it again as a plain one")


def _refusal(path: str | Path, wanted: str) -> UserError:
    return UserError(
        f"{path}: refused, because it asks for code to be run or for types that weights do not need ({wanted}); "
        "nothing of it was run. Take the file from the release itself, or save its model alone again where you trust it"
    )


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The first mapping of names to tensors, at the top or under one of the known keys; {} where there is none."""
    if not isinstance(content, Mapping):
        return {}
    candidates = [content, *(content[nest] for nest in _NESTS if nest in content)]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate:
            if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in candidate.items()):
                return dict(candidate)
    return {}
