"""Models and feature extractors of transformers, read for an expert."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.third_party import third_party_errors
from codec.untrusted_weights import require_plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(cls: type[Any], config: ExpertConfig, needed: str = "") -> PreTrainedModel:
    """The transformers model of an expert, in float32 whatever type it is stored in.

    Args:
        cls: Class that reads it.
        config: Names the source and, in errors, the role.
        needed: How the names of the weights begin that the expert needs; "": all.

    Returns:
        The model; on torch's meta device, one of its shapes alone.

    Raises:
        UserError: A needed weight is missing, NaN or infinite, or the source cannot be read.
    """
    from transformers import AutoConfig, AutoModel

    with _reading(config):
        if torch.get_default_device().type == "meta":
            return AutoModel.from_config(AutoConfig.from_pretrained(config.source, trust_remote_code=False))
        model, loading = cls.from_pretrained(
            config.source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    absent = sorted(
        name for name in loading["missing_keys"] if name.startswith(needed) and not name.endswith("masked_spec_embed")
    )
    if absent:  # transformers would fill them with random numbers
        raise UserError(
            f"{config.source}: {len(absent)} weights of the {config.role} expert are missing ({absent[0]}, ...); copy "
            "the model again"
        )
    require_plain(config.source, model.state_dict())
    return model


def load_extractor(cls: type[Any], config: ExpertConfig) -> Any:
    """The feature extractor of an expert's transformers model. Raises UserError where it is missing or damaged."""
    with _reading(config):
        extractor = cls.from_pretrained(config.source, trust_remote_code=False)
    rate = getattr(extractor, "sampling_rate", None)
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
        raise UserError(
            f"{config.source}: sampling_rate of its feature extractor is {rate!r}, which must be a number of Hz; copy "
            "preprocessor_config.json again"
        )
    return extractor


def _reading(config: ExpertConfig) -> AbstractContextManager[None]:
    wrong = f"the {config.role} expert could not be read"
    return third_party_errors(config.source, wrong, "give the folder or hub id of a whole transformers model")
