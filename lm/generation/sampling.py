"""Drawing ids from logits: temperature, top-k, and noise that belongs to a request rather than to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lm.generation.settings import GenerationSettings

# A row that is drawn greedily by a temperature of 0 is divided by this instead: its likeliest id is drawn anyway.
_COLDEST = 1e-6


@dataclass(frozen=True)
class SamplingForm:
    """What of the settings decides which operations a step does; all else of them are numbers that it reads."""

    # whether logits with and without the conditions are compared
    guided: bool
    # ids that a draw looks at, the likeliest; 1: it takes the likeliest one; None: it looks at all
    width: int | None
    # whether streams end at a length
    limited: bool

    @classmethod
    def of(cls, settings: GenerationSettings, rounded: bool = False, audio: bool = True) -> SamplingForm:
        """The form of some settings.

        Args:
            settings: How to generate.
            rounded: Widths are powers of 2, so that many settings have one form.
            audio: Whether audio is generated; text knows neither guidance nor streams.
        """
        temperatures = [settings.temperature, *(settings.stream_temperature.values() if audio else ())]
        width = settings.top_k
        if width == 1 or not any(temperatures):
            width = 1
        elif rounded and width is not None:
            width = 1 << (width - 1).bit_length()
        return cls(audio and settings.guided, width, audio and settings.max_seconds is not None)


class Sampling:
    """Settings of requests as tensors, which may change under a step that was captured."""

    def __init__(self, batch: int, streams: Sequence[str], device: torch.device) -> None:
        """
        Args:
            batch: Requests.
            streams: Names, in the order of the phases; one without a name for text.
            device: Where the tensors lie.
        """
        self._streams = streams
        self.temperature = torch.ones(batch, len(streams), device=device)  # (B, phases)
        self.guidance = torch.ones(batch, len(streams), device=device)  # (B, phases)
        self.top_k = torch.ones(batch, dtype=torch.int64, device=device)  # (B,); all that a draw looks at, or more
        self.max_frames = torch.zeros(len(streams), dtype=torch.int64, device=device)  # (phases,)
        self.form = SamplingForm(False, 1, False)

    def set(self, settings: GenerationSettings, form: SamplingForm, max_frames: Sequence[int] | None = None) -> None:
        """Take these settings for all requests.

        Args:
            settings: How to generate.
            form: Theirs.
            max_frames: Of each phase, where `form` is limited.
        """
        self.form = form
        for values, of in ((self.temperature, settings.temperature_of), (self.guidance, settings.guidance_of)):
            values.copy_(torch.tensor([of(stream) for stream in self._streams]))
        self.top_k.fill_(2**62 if settings.top_k is None else settings.top_k)
        self.max_frames.copy_(torch.tensor(max_frames or [0] * len(self._streams)))

    def tensors(self) -> list[Tensor]:
        """What a static step reads."""
        return [self.temperature, self.guidance, self.top_k, self.max_frames]

    def keep(self, entries: Tensor) -> None:
        """Forget every request but these."""
        self.temperature, self.guidance = self.temperature[entries], self.guidance[entries]
        self.top_k = self.top_k[entries]


def request_noise(seeds: Sequence[int], rows: int, columns: int, device: torch.device) -> Tensor:
    """One uniform number in [0, 1) for every id that will be drawn: (B, rows, columns).

    Row b depends on seeds[b] alone, is drawn on the CPU, and its beginning does not depend on `rows`: a request samples
    the same ids at any place of any batch and on any device.

    Args:
        seeds: One of each request.
        rows: That will be drawn at most.
        columns: Ids of a row.
        device: Where the result lies.
    """
    drawn = [torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(device)


def sample(logits: Tensor, uniform: Tensor, temperature: Tensor, width: int | None, top_k: Tensor) -> Tensor:
    """Draw one id per row, (B,). Ids with a logit of -inf are never drawn.

    Inverse-CDF sampling over the k likeliest ids needs one number per id drawn, not one per vocabulary entry.

    Args:
        logits: (B, V).
        uniform: (B,) noise in [0, 1).
        temperature: (B,) that logits are divided by; 0 takes the likeliest id.
        width: Ids that are looked at, as in `SamplingForm`.
        top_k: (B,) of the likeliest ids, those that may be drawn; what is at or above `width` plays no part.
    """
    if width == 1:
        return logits.argmax(-1)
    looked_at = logits.shape[-1] if width is None else min(width, logits.shape[-1])
    values, ids = logits.float().topk(looked_at)  # (B, k), likeliest first
    values.div_(temperature.clamp(min=_COLDEST)[:, None])
    values.masked_fill_(torch.arange(looked_at, device=values.device) >= top_k[:, None], float("-inf"))
    cumulative = values.softmax(-1).cumsum(-1)
    threshold = (uniform * (temperature > 0))[:, None] * cumulative[:, -1:]  # the sum may miss 1 by a rounding error
    return ids.gather(1, (cumulative < threshold).sum(-1, keepdim=True))[:, 0]
