"""The published scalar autoencoder in our module: its configuration file and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from codec.io.errors import UserError
from codec.io.strict import parse
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.release.names import our_scalar_name, seems
from codec.untrusted_weights import WeightFile


def read_scalar_config(path: str | Path) -> dict[str, Any]:
    """The values of a published configuration file. Raises UserError where it is not YAML or names no sizes."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as YAML ({detail}); give the scalar autoencoder's config") from error
    if _sizes(values) is None:
        raise UserError(f"{path}: names no downsample_factors; give the scalar autoencoder's config")
    return values


def scalar_autoencoder_from_published(
    file: WeightFile, source: str, values: dict[str, Any], config: str
) -> ScalarAutoencoder:
    """The autoencoder of published files, in eval mode.

    Args:
        file: Its weights.
        source: Names the file of weights in errors.
        values: Of its configuration, as `read_scalar_config` returns them.
        config: Names the configuration file in errors.

    Raises:
        UserError: The configuration describes no autoencoder, or the weights do not fit it.
    """
    try:
        autoencoder = ScalarAutoencoder(parse(ScalarConfig, _sizes(values), config))
    except (UserError, TypeError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{config}: does not describe a published scalar autoencoder ({detail})") from error
    state = scalar_state_from_published(file.state, source)
    try:
        autoencoder.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(
            f"{source}: does not fit {config} ({detail}){seems(file.state)}; both must be of one release"
        ) from error
    return autoencoder.eval()


def scalar_state_from_published(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state dict of a ScalarAutoencoder from a published one, which names the shared activation once per stage.

    Raises:
        UserError: Two tensors of one place differ.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        name = our_scalar_name(key)
        if not torch.equal(converted.setdefault(name, value).float(), value.float()):
            raise UserError(
                f"{source}: {key}: published files repeat this value, but here it differs; use the original file"
            )
    return converted


def _sizes(values: object) -> dict[str, Any] | None:
    """The mapping, at whatever depth, that holds an autoencoder's sizes."""
    if not isinstance(values, dict):
        return None
    if "downsample_factors" in values:
        return values
    return next((found for value in values.values() if (found := _sizes(value)) is not None), None)
