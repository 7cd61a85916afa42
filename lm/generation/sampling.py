"""Drawing ids from logits: temperature, top-k, and noise that belongs to a request rather than to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lm.generation.settings import GenerationSettings


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


def sample(logits: Tensor, settings: GenerationSettings, uniform: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Draw one id per row, (B,). Ids with a logit of -inf are never drawn.

    Inverse-CDF sampling over the k likeliest ids needs one number per id drawn, not one per vocabulary entry.

    Args:
        logits: (B, V).
        settings: Temperature and top-k.
        uniform: (B,) noise in [0, 1).
        temperature: (B,) of each row, where it is not the settings' one.
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
