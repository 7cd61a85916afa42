"""What of released codec files our codec does not hold, kept beside it so that it can be written in their form again.

Two files in the codec's folder: published.json names every tensor of every file in its order, with the tensor of ours
that it is; published.safetensors holds those without one: tables that ours computes, an auxiliary decoder,
what pre-trained the music encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codec.io.errors import UserError
from codec.tensor_files import save_tensors
from codec.untrusted_weights import WeightFile

RECORD_FILE, APART_FILE = "published.json", "published.safetensors"
_REMEDY = "import the released files again, or delete published.* to export in the current published form"


@dataclass(frozen=True)
class FileRecord:
    """One released file."""

    # key under which its weights lie (see WeightFile)
    nest: str
    # how every name begins
    prefix: str
    # published name, without prefix -> (our name in the codec's state dict, None where there is none; type)
    tensors: dict[str, tuple[str | None, str]]


@dataclass(frozen=True)
class PublishedFiles:
    """The released files of a codec."""

    # "codec", "scalar" and, where it has its own, "music_encoder"
    files: dict[str, FileRecord]
    # values of the scalar autoencoder's configuration file
    scalar_config: dict[str, Any]
    # (file, published name) -> tensor without counterpart in the codec
    apart: dict[tuple[str, str], Tensor]

    def save(self, folder: str | Path) -> None:
        """Write both files into the folder of a codec."""
        folder = Path(folder)
        if self.apart:
            save_tensors(
                {f"{file}:{key}": value.clone() for (file, key), value in self.apart.items()}, folder / APART_FILE
            )
        values = {
            "files": {
                name: {"nest": f.nest, "prefix": f.prefix, "tensors": [[k, *v] for k, v in f.tensors.items()]}
                for name, f in self.files.items()
            },
            "scalar_config": self.scalar_config,
        }
        (folder / RECORD_FILE).write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> PublishedFiles | None:
        """Of an imported codec's folder; None where it has none. Raises UserError where it is damaged."""
        folder = Path(folder)
        path = folder / RECORD_FILE
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            files = {
                name: FileRecord(f["nest"], f["prefix"], {key: (ours, dtype) for key, ours, dtype in f["tensors"]})
                for name, f in values["files"].items()
            }
            apart = load_file(folder / APART_FILE) if (folder / APART_FILE).is_file() else {}
            named = [(name, key) for name, f in files.items() for key, (ours, _) in f.tensors.items() if ours is None]
            return cls(files, dict(values["scalar_config"]), {(f, key): apart[f"{f}:{key}"] for f, key in named})
        except (OSError, ValueError, TypeError, LookupError, AttributeError, SafetensorError) as error:
            detail = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: damaged, or {APART_FILE} beside it ({detail}); {_REMEDY}") from error

    def narrow_types(self) -> dict[str, torch.dtype]:
        """Our name -> type of the tensors that the files hold in a floating-point type other than float32."""
        types = {ours: getattr(torch, dtype) for f in self.files.values() for ours, dtype in f.tensors.values() if ours}
        return {ours: dtype for ours, dtype in types.items() if dtype.is_floating_point and dtype != torch.float32}

    def state(self, file: str, codec: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
        """The tensors of one released file, under its names and in its types and order, from the codec's.

        A tensor that a narrower type would round, as after training, keeps its own. folder: for messages.

        Raises:
            UserError: The codec lacks one.
        """
        state = {}
        for key, (ours, dtype) in self.files[file].tensors.items():
            if ours is not None and ours not in codec:
                raise UserError(f"{folder}/{RECORD_FILE}: the codec has no '{ours}'; {_REMEDY}")
            value = self.apart[file, key] if ours is None else codec[ours]
            narrow = value.to(getattr(torch, dtype))
            exact = torch.equal(narrow.to(value.dtype), value)
            state[self.files[file].prefix + key] = (narrow if exact else value).detach().cpu().contiguous().clone()
        return state


def recorded(
    ours: Mapping[str, Tensor],
    files: Mapping[str, tuple[WeightFile, Callable[[str], str | None]]],
    scalar_config: dict[str, Any],
) -> PublishedFiles:
    """The record of released files whose tensors a codec's state dict holds.

    Args:
        files: Name -> the file and our name for each of its tensors (None: it has none).
    """
    records, apart = {}, {}
    for name, (file, our_name) in files.items():
        tensors: dict[str, tuple[str | None, str]] = {}
        for key, value in file.state.items():
            source = our_name(key)
            if source is None or source not in ours or not _same_bits(ours[source], value):
                source = None
                apart[name, key] = value
            tensors[key] = (source, str(value.dtype).removeprefix("torch."))
        records[name] = FileRecord(file.nest, file.prefix, tensors)
    return PublishedFiles(records, scalar_config, apart)


def _same_bits(ours: Tensor, published: Tensor) -> bool:
    """Whether ours, in the type of the published one, equals it to the bit."""
    if ours.shape != published.shape:
        return False
    return torch.equal(_bits(ours.to(published.dtype)), _bits(published))


def _bits(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
