"""Weights from files that others made: safetensors, or pickles of which nothing but weights is taken.

A pickle can run any program when it is read. Here only tensors, plain values and a few harmless types (ALLOWED) pass;
anything else is refused before it acts, and the file's other contents (optimiser, statistics) are not looked at.
"""

from __future__ import annotations

import argparse
import datetime
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.errors import UserError

# What training programs leave beside the weights: command-line arguments and durations. They hold values, no code.
ALLOWED = (argparse.Namespace, datetime.timedelta)

_NESTS = ("model", "codec_model", "state_dict")  # keys under which published checkpoints keep their weights
_UNREADABLE = (  # what torch and pickle raise over files that are no checkpoints, or not wholly
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
)
_PARALLEL = "module."  # prefix that a wrapped model leaves on every key


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, out of whatever it is nested in.

    Raises UserError where the file is missing or damaged, holds what is no weight, or holds none.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file of weights")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    state = _state_dict(content)
    if not state:
        raise UserError(
            f"{path}: holds no state dict, neither by itself nor under {', '.join(_NESTS)}; give a file of weights"
        )
    if all(key.startswith(_PARALLEL) for key in state):
        state = {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({error}); copy it again") from error


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        detail = " ".join(str(error).split())
        refused = re.search(r"GLOBAL (\S+)", detail)  # torch's word for what a pickle wants to import
        if refused:
            raise UserError(
                f"{path}: holds more than weights ({refused[1]}) and is not read; where you trust it, open it yourself "
                "and save its state dict alone, best as safetensors"
            ) from error
        raise UserError(f"{path}: damaged or not a file of weights ({detail[-160:]}); copy it again") from error


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
