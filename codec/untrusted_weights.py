"""Weights from files that others made: safetensors, or pickles of which nothing but weights is taken.

A pickle can name any function to be called while it is read. Here only tensors, plain containers and the few types of
ALLOWED are built; a file that asks for anything else is refused, and nothing that it asks for is called. What a file is
goes by its first bytes, not by its name.
"""

from __future__ import annotations

import argparse
import datetime
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.io.errors import UserError

# What training programs leave beside the weights: command-line arguments, times and numbers. They hold values, no code.
# Numbers of numpy carry the name that their numpy version wrote.
ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    datetime.timedelta,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "bool")),
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
]

NESTS = ("model", "codec_model", "state_dict")  # keys under which published checkpoints keep their weights
PARALLEL = "module."  # prefix that a wrapped model leaves on every key
_TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of weights; whole numbers of any size count
# What torch raises where a file is damaged.
_UNREADABLE = (
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    StructError,
    zipfile.BadZipFile,
)
_BEGINNINGS = (  # first bytes -> what the file is, where that is no file of weights
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to; fetch that with `git lfs pull`"),
    (b"<!doctype", "a web page, not a checkpoint; download the file itself"),
    (b"<html", "a web page, not a checkpoint; download the file itself"),
    (b"<?xml", "an XML answer of a server, not a checkpoint; download the file itself"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it"),
    (b"GGUF", "in the form of llama.cpp (GGUF); give the checkpoint of torch"),
    (b"\x89HDF", "in the form HDF5; give the checkpoint of torch"),
    (b"RIFF", "a sound or picture; give a file of weights"),
)


class WeightFile(NamedTuple):
    """A file's weights."""

    # name -> tensor, on the CPU, without `prefix`
    state: dict[str, Tensor]
    # key of the file under which they lie; "" at the top
    nest: str
    # how every name begins in the file
    prefix: str
    # the file's other keys, whose values are no weights
    others: list[str]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU, out of whatever it is nested in; errors as `read_weight_file`."""
    return read_weight_file(path).state


def read_weight_file(path: str | Path) -> WeightFile:
    """A file's weights, on the CPU, and how they stand in it.

    Raises:
        UserError: The file is missing or damaged, asks for code to be run, holds no weights, or holds tensors that are
            NaN, infinite, or not simply numbers in memory.
    """
    path = Path(path)
    content = _read(path)
    nest, state = _state_dict(content)
    if not state:
        raise UserError(f"{path}: holds no state dict, {_found(content)}; give a file of weights")
    require_plain(path, state)
    prefix = PARALLEL if all(key.startswith(PARALLEL) for key in state) else ""
    others = [str(key) for key in content if key != nest] if nest else []
    return WeightFile({key.removeprefix(prefix): value for key, value in state.items()}, nest, prefix, others)


def _read(path: Path) -> Any:
    require_weights_form(path)
    with path.open("rb") as file:
        start = file.read(9)
    # Eight bytes hold the length of the header, and that is JSON.
    named = path.suffix == ".safetensors" and not start.startswith(b"PK")
    return _read_safetensors(path) if start[8:9] == b"{" or named else read_pickle(path)


def require_weights_form(path: Path) -> None:
    """Raise UserError, saying what it is, where `path` is no file, or one that cannot be one of weights."""
    if path.is_dir():
        raise UserError(f"{path}: a folder, where a file of weights is expected; give the file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a file of weights")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable and try again") from error
    if not start:
        raise UserError(f"{path}: an empty file; download it again")
    if start[257:262] == b"ustar":
        raise UserError(f"{path}: a tar archive, not a checkpoint; unpack it and give the file of weights in it")
    shown = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in _BEGINNINGS:
        if shown.startswith(beginning.lower()):
            raise UserError(f"{path}: {what}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *_UNREADABLE) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged, cut short or no safetensors file ({detail}); copy it again") from error


def read_pickle(path: str | Path) -> Any:
    """What torch.save wrote, tensors on the CPU; those that are not read are never copied into memory.

    Raises:
        UserError: The file is damaged, or asks for code to be run or for a type that is not ALLOWED.
    """
    path = Path(path)
    require_weights_form(path)
    zipped = _is_zipped(path)  # torch's form since 1.6; an older file cannot be looked into beforehand
    if zipped:
        _require_torch_archive(path)
    damaged = UserError(
        f"{path}: damaged, cut short or no torch checkpoint; compare its size with the original's and download it again"
    )
    with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about files that are refused or read all the same
        try:
            foreign = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if zipped else []
            if foreign:
                raise _refusal(path, ", ".join(foreign[:5]))
            if path.suffix == ".safetensors":  # torch would go by the name
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except UnpicklingError as error:
            # torch's own advice (to read the file unsafely) is not passed on, here and below.
            named = re.search(
                r"GLOBAL (\S+)|function (.+?)(?: which|$)|Unsupported operand \d+", str(error), re.MULTILINE
            )
            if named:
                raise _refusal(path, named[0]) from error
            raise damaged from error
        except _UNREADABLE as error:
            raise damaged from error


def _is_zipped(path: Path) -> bool:
    """Whether a file is a zip archive, of which the directory may be damaged."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True


def _require_torch_archive(path: Path) -> None:
    """Raise UserError where a zip archive is not of torch's form: nothing in it compressed, and one data.pkl."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except _UNREADABLE as error:
        raise UserError(f"{path}: a damaged zip archive; download it again") from error
    named = [entry.filename for entry in entries]
    if any(name == "constants.pkl" or name.endswith("/constants.pkl") for name in named):
        raise UserError(f"{path}: a program (TorchScript), which would be run; give its weights alone")
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in named):
        some = ", ".join(sorted(named)[:3]) or "nothing"
        raise UserError(f"{path}: a zip archive, but no torch checkpoint (it holds {some}); unpack it")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path}: a compressed zip archive, which torch does not write; use the original file")


def require_plain(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError where a tensor is not simply its numbers in memory, or one of them is NaN or infinite."""
    for key, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise UserError(f"{path}: '{key}' is a sparse, quantised or empty tensor; save it again as a plain one")
        whole = not value.is_floating_point() and not value.is_complex()
        if value.dtype not in _TYPES and not whole:
            raise UserError(f"{path}: '{key}' is of type {value.dtype}; save it again as float32, float16 or bfloat16")
        if not whole and value.numel() and not torch.stack(torch.aminmax(value)).isfinite().all():
            raise UserError(f"{path}: '{key}' holds NaN or infinite numbers; take the file from the release again")


def _refusal(path: str | Path, requested: str) -> UserError:
    return UserError(
        f"{path}: refused, because it asks for code to be run or for types that weights do not need ({requested}); "
        "nothing of it was run. Take the file from the release itself, or save its model alone again where you trust it"
    )


def _state_dict(content: Any) -> tuple[str, dict[str, Tensor]]:
    """The first mapping of names to tensors, at the top or under one of the known keys, and which; {} without one."""
    if not isinstance(content, Mapping):
        return "", {}
    candidates = [("", content), *((nest, content[nest]) for nest in NESTS if nest in content)]
    for nest, candidate in candidates:
        if isinstance(candidate, Mapping) and candidate:
            if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in candidate.items()):
                return nest, dict(candidate)
    return "", {}


def _found(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"but one {type(content).__name__}"
    keys = ", ".join(map(str, list(content)[:5])) or "nothing"
    return f"neither at the top nor under {', '.join(NESTS)} (found: {keys})"
