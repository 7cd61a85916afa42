"""Weights of the published numerical fixtures, rebuilt from their keys and renamed to ours."""

import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from codec.release.names import our_name


def load_fixture(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def facts(config: Path) -> dict:
    """What a fixture's JSON file says of it."""
    return json.loads(config.read_text(encoding="utf-8"))


def published_state(config: Path) -> dict[str, torch.Tensor]:
    """Published state dict of a fixture, by the script that lies beside it."""
    spec = importlib.util.spec_from_file_location("regenerate_state", config.parent / "regenerate_state.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {key: torch.as_tensor(value) for key, value in module.regenerate(str(config)).items()}


def converted_state(config: Path, prefix: str) -> dict[str, torch.Tensor]:
    """The part of it that our module under `prefix` holds, under its names there."""
    named = {our_name(key): value for key, value in published_state(config).items()}
    return {name.removeprefix(prefix): value for name, value in named.items() if name and name.startswith(prefix)}
