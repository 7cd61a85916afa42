"""Judges and metrics whose packages are extras: one that is not here is left out by name, and nothing else fails."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from codec.io.errors import UserError


class Absent(UserError):
    """What a score is measured with is not here: a package is not installed, or a model was not given."""


def require(what: str, *modules: str, extra: str = "quality") -> None:
    """Raise Absent, with what to install, unless top-level modules can be found; nothing is imported."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise Absent(f"{what} needs {' and '.join(missing)}: pip install 'uniaudio[{extra}]'")


def folder_of(module: str) -> Path:
    """Where an installed package lies, for the weights in it; nothing of it is imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise Absent(f"{module} is not installed: pip install 'uniaudio[quality]'")
    return Path(spec.submodule_search_locations[0])
