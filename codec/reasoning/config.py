"""Configuration of the codec: frozen dataclasses that travel as JSON beside the weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from codec.io.aliases import former
from codec.io.errors import UserError
from codec.io.numbers import Layers, NonNegative, Range, Share, Width


@dataclass(frozen=True)
class QuantiserConfig:
    """Residual vector quantisation (vector-quantize-pytorch), one stack.

    dead_code_threshold is in vectors per batch (a decaying average): a code that fewer vectors choose is replaced by a
    vector of the batch. It must lie well below batch frames / codebook_size, else living codes are replaced too.
    """

    codebook_size: Width = 8192
    codebook_dim: Width = 32
    decay: Share = 0.9
    dead_code_threshold: NonNegative = 2.0
    rotation_trick: bool = True
    kmeans_init: bool = True


@dataclass(frozen=True)
class StructuralConfig:
    """Structural branch (ReasoningCodec, reconstruction): 1 phone + 1 structure + 6 acoustic codes at 12.5 Hz.

    film_drop: share of clips that train without FiLM, drawn for each of the three; 1 is an ablation: FiLM, which starts
        as identity, then never learns to be anything else
    """

    dim: Width = 768
    film_scale: NonNegative = 0.1
    film_drop: Share = 0.2
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)


@dataclass(frozen=True)
class FlowConfig:
    """Flow decoder. Defaults are the published sizes.

    time_sampling: "uniform" or "logit_normal", the flow times of training
    window_frames, overlap_frames: 25 Hz frames of one decoding window and how many of them it shares with the last one,
        which are its context: no more than training gave (published: 32 to 64)
    """

    layers: Layers = 32
    heads: Width = 24
    head_dim: Width = 64
    ff_mult: Width = 4
    max_frames: Annotated[int, Range(2, 2**16)] = 3000  # 44 minutes; a table of that many rows is computed
    sigma_min: Share = 1e-4
    time_sampling: Literal["uniform", "logit_normal"] = "uniform"
    window_frames: Annotated[int, Range(2, 2**16)] = 500
    overlap_frames: Annotated[int, Range(2, 2**16)] = 60

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
    """The same without default values, in the names that keys first had: equal when a field is new or renamed."""
    if dataclasses.is_dataclass(config):
        values = {}
        for known in dataclasses.fields(config):
            value = getattr(config, known.name)
            default = known.default if known.default_factory is dataclasses.MISSING else known.default_factory()
            if value != default:
                key, value = former(type(config), known.name, value)
                values[key] = without_defaults(value)
        return values
    if isinstance(config, dict):
        return {name: without_defaults(value) for name, value in config.items()}
    return [without_defaults(value) for value in config] if isinstance(config, tuple) else config
