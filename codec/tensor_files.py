"""Writing and reading safetensors files.

The library leaves its files readable for their owner alone, whatever the user's file mode creation mask says, so that
others on a cluster could read a model's config.json but not its weights.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from codec.io.errors import UserError, of_system, writing
from codec.io.files import replace_file
from codec.io.third_party import third_party_errors

_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
_POINTER = b"version https://git-lfs"  # how the text begins that stands in for a large file


@dataclass(frozen=True)
class Stored:
    """A tensor of a file, known by its header."""

    # of the tensor
    shape: tuple[int, ...]
    # "float", "integer", "truth" or "complex"
    kind: str

    @classmethod
    def of(cls, tensor: Tensor) -> Stored:
        kind = "truth" if tensor.dtype == torch.bool else "integer"
        kind = "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else kind
        return cls(tuple(tensor.shape), kind)

    def fits(self, tensor: Tensor) -> bool:
        """Whether it can be loaded into a tensor without changing what it means."""
        expected = Stored.of(tensor)
        # Versions of vector-quantize-pytorch differ in how they write down whether a codebook has begun.
        return self.shape == expected.shape and (self.kind == expected.kind or expected.kind == "truth")

    @property
    def text(self) -> str:
        return f"{self.kind} {list(self.shape)}"


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write tensors of any device to a file, all of it or nothing: the same bytes for the same tensors.

    Args:
        tensors: By name.
        path: The file, which has the mode of any other new file.
        metadata: Texts for the header.

    Raises:
        UserError: The file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replace_file(path) as temporary:
        with writing(path):
            save_file(plain, temporary, metadata={"format": "pt"} | metadata)
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file into the order of its names; the library's own order is random."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # another way to write it would be longer: left as it is
            file.seek(8)
            file.write(text.ljust(length))


def stored_tensors(path: str | Path, remedy: str = "copy it again") -> dict[str, Stored]:
    """Name -> shape and kind of every tensor of a safetensors file; its numbers are not read.

    Raises:
        UserError: The file is missing, cut short or damaged.
    """
    path = Path(path)
    _require_tensors(path, remedy)
    with third_party_errors(path, "damaged or not a safetensors file", remedy), safe_open(path, "pt") as file:
        made = {}
        for name in file.keys():  # noqa: SIM118 (it is no mapping)
            piece = file.get_slice(name)
            made[name] = Stored(tuple(piece.get_shape()), _kind(piece.get_dtype()))
        return made


def stored_types(path: str | Path) -> dict[str, torch.dtype]:
    """Name -> type of the tensors of a sound safetensors file that are floating-point, but not float32."""
    with safe_open(path, "pt") as file:
        types = {name: _TYPES.get(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    return {name: dtype for name, dtype in types.items() if dtype is not None}


def load_tensors(path: str | Path, remedy: str = "copy it again") -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises UserError where it is damaged or a number not finite."""
    path = Path(path)
    _require_tensors(path, remedy)
    with third_party_errors(path, "damaged or not a safetensors file", remedy):
        tensors = load_file(path)
    require_finite(tensors, path, remedy)
    return tensors


def require_finite(tensors: Mapping[str, Tensor], path: str | Path, remedy: str = "copy it again") -> None:
    """Raise UserError, naming the file, where a tensor holds NaN or infinity: what it would make means nothing."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            values = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # 8 bits know no extremes
            low, high = torch.aminmax(values)  # one pass without a copy; NaN is passed on
            if not (torch.isfinite(low) and torch.isfinite(high)):
                found = "infinite values" if not (low.isnan() or high.isnan()) else "NaN"
                raise UserError(f"{path}: {name} holds {found}, so results would mean nothing; {remedy}")


def _require_tensors(path: Path, remedy: str) -> None:
    """Raise UserError where a path is plainly no safetensors file, for a reason that the library would not name."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
            raise UserError(f"{path}: is {kind}, where a file of weights is expected; {remedy}")
        with path.open("rb") as file:
            begins = file.read(len(_POINTER))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the weights are missing; {remedy}") from error
    except OSError as error:
        raise of_system(error, path) from error
    if not begins:
        raise UserError(f"{path}: is empty; {remedy}")
    if begins == _POINTER:
        raise UserError(
            f"{path}: stands in for the weights, which git-lfs has not fetched; run `git lfs pull` where it came from"
        )


def _kind(name: str) -> str:
    """Of the names of the file format, such as F16, BF16, F8_E4M3, I64, U8, BOOL, C64."""
    first = name.removeprefix("B")[:1] if name != "BOOL" else "T"
    return {"F": "float", "T": "truth", "C": "complex"}.get(first, "integer")


def share_weights(folder: str | Path) -> None:
    """Give the weight files that another library wrote into a folder the mode of the config.json beside them.

    Nothing to do where there is none: of many processes, only the first writes.
    """
    config = Path(folder) / "config.json"
    if config.is_file():
        for path in config.parent.glob("*.safetensors"):
            path.chmod(config.stat().st_mode)
