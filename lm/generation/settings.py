"""How to generate: one type of settings, for a model's folder, a request, an evaluation task and a recipe.

Needs no PyTorch, so that what people write is refused before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from codec.io.errors import UserError
from codec.io.numbers import Count, Guidance, Range, Seconds, Temperature
from codec.io.strict import parse
from codec.streams import is_absent

if TYPE_CHECKING:
    from transformers import GenerationConfig

STREAM_SETTINGS = ("stream_temperature", "stream_guidance")  # those that name streams

Rows = Annotated[int, Range(1, 100_000)]  # 95 minutes of ReasoningCodec's
Candidates = Annotated[int, Range(1, 100)]


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate."""

    # rows generated at most, special frames included; 17.5 rows are a second of ReasoningCodec's audio
    max_rows: Rows = 500
    # logits are divided by it; 0 always takes the likeliest id
    temperature: Temperature = 0.9
    # only the k likeliest ids are drawn from; 1 always takes the likeliest, null allows all
    top_k: Count | None = 50
    # scale of classifier-free guidance for audio; 1 is none, more follows the prompt more closely
    guidance: Guidance = 1.0
    # name of a stream -> its own temperature
    stream_temperature: Mapping[str, Temperature] = field(default_factory=dict)
    # name of a stream -> its own guidance
    stream_guidance: Mapping[str, Guidance] = field(default_factory=dict)
    # longest audio, to the frame: a stream that has as many frames ends there; null: as the rows allow
    max_seconds: Seconds | None = None
    # sounds made for a request that is told in words, of which the model keeps the one that it understands best
    candidates: Candidates = 1

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {self.max_rows}")
        values = {"temperature": self.temperature, "guidance": self.guidance}
        values |= {f"stream_temperature[{name!r}]": value for name, value in self.stream_temperature.items()}
        values |= {f"stream_guidance[{name!r}]": value for name, value in self.stream_guidance.items()}
        for name, value in values.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {value}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1 (or None for all ids), got {self.top_k}")
        if self.max_seconds is not None and not 0 < self.max_seconds < float("inf"):
            raise ValueError(f"max_seconds must be above 0 (or None), got {self.max_seconds}")
        if self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, got {self.candidates}")

    def temperature_of(self, stream: str) -> float:
        """Temperature in a stream of that name."""
        return self.stream_temperature.get(stream, self.temperature)

    def guidance_of(self, stream: str) -> float:
        """Guidance in a stream of that name."""
        return self.stream_guidance.get(stream, self.guidance)

    @property
    def greedy(self) -> bool:
        """Whether every id is the likeliest one."""
        return self.top_k == 1 or not any((self.temperature, *self.stream_temperature.values()))

    @property
    def guided(self) -> bool:
        """Whether guidance plays a part anywhere."""
        return any(scale != 1 for scale in (self.guidance, *self.stream_guidance.values()))


def settings_for(config: GenerationConfig | None, task: str = "") -> GenerationSettings:
    """The settings that a model's generation_config.json names for a task.

    They stand under `sampling`: name of a task, or "all" for every other -> fields of GenerationSettings.

    Args:
        config: Of a model; None: the defaults.
        task: What is asked for, such as "tts".

    Raises:
        UserError: A field is unknown or unfit.
    """
    values = getattr(config, "sampling", None) or {}
    where = "generation_config.json: sampling"
    if not isinstance(values, dict) or not all(isinstance(of_task, dict) for of_task in values.values()):
        raise UserError(f"{where} must hold settings under the names of tasks; copy the model again")
    return merged_settings(values, task, where)


def merged_settings(sampling: Mapping[str, Mapping[str, Any]], task: str, source: str) -> GenerationSettings:
    """The settings of a task: its own before those of "all".

    Args:
        sampling: Name of a task, or "all" -> fields of GenerationSettings.
        task: What is asked for, such as "tts".
        source: Names where they stand, for messages.

    Raises:
        UserError: A field is unknown or unfit.
    """
    return parse(GenerationSettings, {**sampling.get("all", {}), **sampling.get(task, {})}, source)


def without_absent_streams(
    settings: Mapping[str, Any], streams: Sequence[str], where: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings for a tokenizer that may lack streams which they name.

    Args:
        settings: Fields of GenerationSettings.
        streams: Names of the tokenizer's.
        where: Names where the settings stand, for messages.

    Returns:
        The settings without those of absent streams, and of what was left out "stream_guidance.NAME" -> that stream.

    Raises:
        UserError: A stream is named that no kind of tokenizer has.
    """
    kept, left_out = dict(settings), dict[str, str]()
    for key in STREAM_SETTINGS:
        values = settings.get(key) or {}
        absent = {name for name in values if is_absent(name, streams, f"{where}.{key}")}
        left_out |= {f"{key}.{name}": name for name in values if name in absent}
        if absent:
            kept[key] = {name: value for name, value in values.items() if name not in absent}
            if not kept[key]:
                del kept[key]
    return kept, left_out
