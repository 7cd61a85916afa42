"""What is checked of a language model's folder before transformers reads it, and after.

The library goes on where we stop: it makes up weights that are missing, ignores those that are left over, follows an
adapter's file to another model, and names neither the file nor the remedy where a value is of another type.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from torch import nn

from codec.io.errors import UserError
from codec.io.files import inside
from codec.io.numbers import Count, Layers, NonNegative, Positive, Range, Share, Width
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, read_config
from codec.tensor_files import Stored, require_finite, stored_tensors
from lm.vocabulary import VocabularyLayout

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

INDEX_FILE = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
_COPY = "copy the model again"
_EXPERT_LAYERS = Annotated[int, Range(0, 256)]


@dataclass(frozen=True)
class Rotation:
    """Numbers of a rotary position code that would otherwise fail, or give NaN, while it runs."""

    # base of the wave lengths
    rope_theta: Positive = 10000.0
    # how much longer the context is than at first
    factor: Positive = 1.0
    # waves longer than the first context divided by it are stretched
    low_freq_factor: Positive = 1.0
    # waves shorter than the first context divided by it are left
    high_freq_factor: Positive = 4.0
    # the first context, in rows
    original_max_position_embeddings: Count = 1
    # share of a head that is rotated
    partial_rotary_factor: Share = 1.0


@dataclass(frozen=True)
class TransformerSizes:
    """Numbers of a text model of the transformers library, where its configuration gives them."""

    # width of a row
    hidden_size: Width = 1
    # layers
    num_hidden_layers: Layers = 1
    # heads of the queries
    num_attention_heads: Width = 1
    # heads of keys and values; null: as many
    num_key_value_heads: Width | None = None
    # width of a head; null: the width of a row divided by the heads
    head_dim: Width | None = None
    # inner width of the MLP
    intermediate_size: Width = 1
    # text ids
    vocab_size: Width = 1
    # context, in rows
    max_position_embeddings: Count = 1
    # what norms add to a mean square
    rms_norm_eps: Share = 1e-6
    # base of the rotary wave lengths, where it stands here
    rope_theta: Positive | None = None
    # share of the attention that training drops
    attention_dropout: Share = 0.0
    # standard deviation of new weights
    initializer_range: NonNegative = 0.02
    # the rotary code; its numbers are those of Rotation
    rope_parameters: dict[str, Any] | None = None
    # name of the activation function
    hidden_act: str = "silu"

    def __post_init__(self) -> None:
        if self.num_key_value_heads and self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads} must divide num_attention_heads "
                f"{self.num_attention_heads}"
            )


@dataclass(frozen=True)
class ModelConfig:
    """What a model's config.json must say beside what transformers needs."""

    # configuration of the cross-modal layers
    cross_modal: dict[str, Any]
    # configuration of the depth decoder
    depth: dict[str, Any]
    # the vocabulary layout
    vocabulary: dict[str, Any]
    # expert layers before the cross-modal ones
    understanding_layers: _EXPERT_LAYERS = 0
    # expert layers behind them
    generation_layers: _EXPERT_LAYERS = 0
    # of former versions, where no shipped recipe set it
    mask_other_modalities: Literal[False] = False
    # standard deviation of new weights
    initializer_range: NonNegative = 0.02
    # whether text ids are read off by their embeddings
    tie_word_embeddings: bool = False
    # "uniaudio"
    model_type: str = field(default="")


def check_config(folder: Path) -> None:
    """Raise UserError where config.json is not that of one of our models: other types, ranges or kinds of model."""
    path = folder / CONFIG_FILE
    values = read_config(folder, "model", _COPY)
    if values.get("model_type") != "uniaudio":
        raise UserError(f"{path}: model_type is not 'uniaudio', so this is no model of ours; give another folder")
    config = _known(ModelConfig, values, str(path))
    for name in ("cross_modal", "depth"):
        _check_transformer(getattr(config, name), f"{path}: {name}")
    layout = VocabularyLayout.from_dict(config.vocabulary, f"{path}: vocabulary")
    if config.cross_modal.get("vocab_size", layout.text_size) < layout.text_size:
        raise UserError(
            f"{path}: cross_modal.vocab_size is smaller than the {layout.text_size} text ids of the vocabulary; {_COPY}"
        )


def check_text_config(folder: Path) -> None:
    """Raise UserError where config.json is not that of a text model: other types or ranges of what ours must know."""
    values = read_config(folder, "text model", _COPY)
    _check_transformer(values, str(folder / CONFIG_FILE))


def stored_shards(folder: Path) -> dict[str, tuple[Path, Stored]]:
    """Tensor name -> (file, shape and kind) of one weights file or of all that an index names.

    Raises:
        UserError: A file is missing, damaged, outside the folder, or not as its index says.
    """
    index = folder / INDEX_FILE
    single = folder / WEIGHTS_FILE
    if os.path.lexists(single) or not os.path.lexists(index):
        return {name: (single, stored) for name, stored in stored_tensors(single, _COPY).items()}
    values = read_json(index, "index of weights", _COPY)
    placed = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise UserError(f"{index}: has no weight_map from names of tensors to files; {_COPY}")
    found: dict[str, tuple[Path, Stored]] = {}
    for name in sorted(set(placed.values())):
        try:
            path = inside(folder, name)
        except UserError as error:
            raise UserError(f"{index}: {error}; {_COPY}") from error
        for tensor, stored in stored_tensors(path, _COPY).items():
            if placed.get(tensor) != name:
                raise UserError(f"{path}: holds {tensor}, which {INDEX_FILE} does not place there; {_COPY}")
            found[tensor] = (path, stored)
    if lost := sorted(set(placed) - set(found)):
        raise UserError(f"{folder / placed[lost[0]]}: lacks {lost[0]}, which {INDEX_FILE} places there; {_COPY}")
    return found


def check_adapter(folder: Path) -> None:
    """Raise UserError where the folder itself holds an adapter: transformers would load the model that it names."""
    if os.path.lexists(folder / ADAPTER_CONFIG):
        raise UserError(
            f"{folder / ADAPTER_CONFIG}: an adapter beside the model would be put on its weights, or on those of "
            "another model; move its files into a folder adapter/, or give the folder of the model that it belongs to"
        )


def require_finite_model(model: nn.Module, files: Mapping[str, tuple[Path, Stored]], folder: Path) -> None:
    """Check that no weight is NaN or infinite.

    Args:
        model: The model as loaded.
        files: Name of a tensor -> the file that it was read from, as `stored_shards` gives it.
        folder: Named for tensors of no file.

    Raises:
        UserError: One is; names file and tensor.
    """
    for name, tensor in model.state_dict().items():
        require_finite({name: tensor}, files[name][0] if name in files else folder, _COPY)


def _check_transformer(values: Mapping[str, Any], source: str) -> None:
    rotation = _known(TransformerSizes, values, source).rope_parameters
    if rotation is not None:
        _known(Rotation, rotation, f"{source}: rope_parameters")


def _known(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """The fields of a dataclass out of many more values; the others are the library's to judge."""
    names = {field.name for field in fields(cls)}
    return parse(cls, {name: value for name, value in values.items() if name in names}, source)
