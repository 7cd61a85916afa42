"""Configuration of the codec: frozen dataclasses that travel as JSON beside the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from codec.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class QuantiserConfig:
    """Residual vector quantisation (vector-quantize-pytorch), one stack.

    dead_code_threshold is in vectors per batch (a decaying average): a code that fewer vectors choose is replaced by a
    vector of the batch. It must lie well below batch frames / codebook_size, else living codes are replaced too.
    """

    codebook_size: int = 8192
    codebook_dim: int = 32
    decay: float = 0.9
    dead_code_threshold: float = 2.0
    rotation_trick: bool = True
    kmeans_init: bool = True


@dataclass(frozen=True)
class StructuralConfig:
    """Structural branch (ReasoningCodec, reconstruction): 1 phone + 1 structure + 6 acoustic codes at 12.5 Hz.

    film_drop: share of clips that train without FiLM, drawn for each of the three; 1 is an ablation: FiLM, which starts
        as identity, then never learns to be anything else
    """

    dim: int = 768
    film_scale: float = 0.1
    film_drop: float = 0.2
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)


@dataclass(frozen=True)
class FlowConfig:
    """Flow decoder. Defaults are the published sizes.

    time_sampling: "uniform" or "logit_normal", the flow times of training
    window_frames, overlap_frames: 25 Hz frames of one decoding window and how many of them it shares with the last one,
        which are its context: no more than training gave (published: 32 to 64)
    """

    layers: int = 32
    heads: int = 24
    head_dim: int = 64
    ff_mult: int = 4
    max_frames: int = 3000
    sigma_min: float = 1e-4
    time_sampling: Literal["uniform", "logit_normal"] = "uniform"
    window_frames: int = 500
    overlap_frames: int = 60

    def __post_init__(self) -> None:
        if self.time_sampling not in ("uniform", "logit_normal"):
            raise UserError(f"time_sampling must be 'uniform' or 'logit_normal', not {self.time_sampling!r}")
        if not 0 < self.overlap_frames < self.window_frames <= self.max_frames:
            raise UserError("a decoding window must be longer than its overlap and no longer than max_frames")
        if self.window_frames % 2 or self.overlap_frames % 2:
            raise UserError("window_frames and overlap_frames must be even: a structural frame is two latent frames")


def to_json(config: Any) -> dict[str, Any]:
    """Nested dictionaries of a configuration dataclass."""
    return dataclasses.asdict(config)


def without_defaults(config: Any) -> Any:
    """The same but for what has its default value: what stays equal when the dataclass gains a field."""
    if dataclasses.is_dataclass(config):
        values = {}
        for known in dataclasses.fields(config):
            value = getattr(config, known.name)
            default = known.default if known.default_factory is dataclasses.MISSING else known.default_factory()
            if value != default:
                values[known.name] = without_defaults(value)
        return values
    if isinstance(config, dict):
        return {name: without_defaults(value) for name, value in config.items()}
    return [without_defaults(value) for value in config] if isinstance(config, tuple) else config


def from_json(cls: type[T], values: dict[str, Any], source: str) -> T:
    """A configuration dataclass from nested dictionaries.

    Missing keys take their defaults. Raises UserError that names `source` where a key is unknown or a value unfit.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(
            f"{source}: unknown setting {unknown[0]!r} of {cls.__name__}; known are {', '.join(sorted(known))}"
        )
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = hints[name]
        arguments[name] = _value(hint, value, source)
    try:
        return cls(**arguments)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"{source}: settings of {cls.__name__} do not fit ({error})") from error


def _value(hint: Any, value: Any, source: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{source}: {hint.__name__} must be a group of settings, not {value!r}")
        return from_json(hint, value, source)
    if isinstance(value, list):  # JSON knows no tuples
        member = (get_args(hint) or (Any,))[0]
        return tuple(_value(member, item, source) for item in value)
    return value
