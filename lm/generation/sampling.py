"""Drawing ids from logits: temperature, top-k, and noise that belongs to a request rather than to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from codec.io.errors import UserError
from codec.io.numbers import Count, NonNegative, Seconds
from codec.io.strict import parse


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    max_rows: rows generated at most, special frames included; 17.5 rows make one second of audio
    temperature: logits are divided by it; 0 always takes the likeliest id
    top_k: only the k likeliest ids are drawn from; 1 always takes the likeliest, None allows all
    guidance: scale of classifier-free guidance for audio; 1 is none, more follows the prompt more closely
    stream_temperature, stream_guidance: name of a stream -> its own, in place of those
    max_seconds: longest audio, to the frame; a phase that has as many frames ends there. None: as the rows allow
    """

    max_rows: Count = 500
    temperature: NonNegative = 0.9
    top_k: Count | None = 50
    guidance: NonNegative = 1.0
    stream_temperature: Mapping[str, NonNegative] = field(default_factory=dict)
    stream_guidance: Mapping[str, NonNegative] = field(default_factory=dict)
    max_seconds: Seconds | None = None

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
    """The settings of a task: its own before those of "all". Raises UserError naming `source` where one is unfit."""
    return parse(GenerationSettings, {**sampling.get("all", {}), **sampling.get(task, {})}, source)


def request_noise(seeds: Sequence[int], rows: int, columns: int, device: torch.device) -> Tensor:
    """One uniform number in [0, 1) for every id that will be drawn: (B, rows, columns).

    Row b depends on seeds[b] alone, is drawn on the CPU, and its beginning does not depend on `rows`: a request samples
    the same ids at any place of any batch and on any device.
    """
    drawn = [torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def sample(logits: Tensor, settings: GenerationSettings, uniform: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Draw one id per row: logits (B, V), uniform (B,) in [0, 1) -> ids (B,). Ids with a logit of -inf are never drawn.

    temperature: (B,) of each row, where it is not the settings' one
    Inverse-CDF sampling over the k likeliest ids needs one number per id drawn, not one per vocabulary entry.
    """
    if settings.greedy or (temperature is None and settings.temperature == 0):
        return logits.argmax(-1)
    k = logits.shape[-1] if settings.top_k is None else min(settings.top_k, logits.shape[-1])
    values, ids = logits.float().topk(k)  # (B, k), likeliest first
    if temperature is None:
        values.div_(settings.temperature)
    else:
        values.div_(temperature.clamp(min=1e-6)[:, None])
        uniform = uniform * (temperature > 0)  # at 0 the likeliest
    cumulative = values.softmax(-1).cumsum(-1)
    threshold = uniform[:, None] * cumulative[:, -1:]  # the sum may miss 1 by a rounding error
    return ids.gather(1, (cumulative < threshold).sum(-1, keepdim=True))[:, 0]
