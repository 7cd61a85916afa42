"""Writing safetensors files.

The library leaves its files readable for their owner alone, whatever the user's file mode creation mask says, so that
others on a cluster could read a model's config.json but not its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write tensors of any device to a file that has the mode of any other new file."""
    path = Path(path)
    path.touch()
    mode = path.stat().st_mode
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, path, metadata={"format": "pt"} | metadata)
    path.chmod(mode)


def share_weights(folder: str | Path) -> None:
    """Give the weight files that another library wrote into a folder the mode of the config.json beside them.

    Nothing to do where there is none: of many processes, only the first writes.
    """
    config = Path(folder) / "config.json"
    if config.is_file():
        for path in config.parent.glob("*.safetensors"):
            path.chmod(config.stat().st_mode)
