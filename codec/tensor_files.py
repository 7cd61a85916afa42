"""Writing safetensors files.

The library leaves its files readable for their owner alone, whatever the user's file mode creation mask says, so that
others on a cluster could read a model's config.json but not its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from codec.errors import writing
from codec.files import replace_file


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write tensors of any device to a file, all of it or nothing: the same bytes for the same tensors.

    The file has the mode of any other new file. Raises UserError where it cannot be written.
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


def share_weights(folder: str | Path) -> None:
    """Give the weight files that another library wrote into a folder the mode of the config.json beside them.

    Nothing to do where there is none: of many processes, only the first writes.
    """
    config = Path(folder) / "config.json"
    if config.is_file():
        for path in config.parent.glob("*.safetensors"):
            path.chmod(config.stat().st_mode)
