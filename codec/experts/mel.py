"""The mel expert: fixed spectral features, without weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codec.experts.base import ExpertEncoder
from codec.experts.config import ExpertConfig, MelView
from codec.layers.masks import length_mask
from codec.tokens import SAMPLE_RATE


class MelExpert(ExpertEncoder):
    """Log band energies with fixed parameters for each role: an expert without weights, for the starter.

    The price: it knows nothing of speech or music, so everything that Whisper, WavLM and the music encoder learned from
    a million hours must be learned in the training of the codec itself.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        self.views = config.views
        self.dims = {name: view.bands * view.stack for name, view in self.views.items()}
        for name, view in self.views.items():
            self.register_buffer(f"{name}_window", torch.hann_window(view.window), persistent=False)
            self.register_buffer(f"{name}_bands", band_triangles(view, self._fft_size(view)), persistent=False)

    @staticmethod
    def _fft_size(view: MelView) -> int:
        return 2 ** (view.window - 1).bit_length()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        total = waveforms.shape[1] * self.rate // SAMPLE_RATE
        waveforms = waveforms[:, : total * (SAMPLE_RATE // self.rate)]
        inside = length_mask(frames, total)[:, None, :, None]  # (B, 1, T, 1)
        features = {}
        for name, view in self.views.items():
            spectrum = torch.stft(
                waveforms,
                n_fft=self._fft_size(view),
                hop_length=SAMPLE_RATE // (self.rate * view.stack),
                win_length=view.window,
                window=getattr(self, f"{name}_window"),
                pad_mode="constant",
                return_complex=True,
            )[..., :-1]  # (B, bins, T * stack)
            power = spectrum.real.square() + spectrum.imag.square()  # four times as fast as abs() ** 2
            power = getattr(self, f"{name}_bands") @ power  # (B, bands, T * stack)
            power = power / (view.window / 4) ** 2  # a full-scale sine has power 1
            energy = torch.log10(power + 1e-7).unflatten(2, (-1, view.stack))  # (B, bands, T, stack), -7 to 0
            if view.centre:
                mean = (energy * inside).sum((2, 3), keepdim=True) / (inside.sum((2, 3), keepdim=True) * view.stack)
                energy = energy - mean
            else:
                energy = energy + 4
            features[name] = energy.transpose(2, 3).flatten(1, 2)  # (B, bands * stack, T)
        return features


def band_triangles(view: MelView, fft_size: int) -> Tensor:
    """(bands, bins) triangular weights of a view, each band's weights summing to one; on the CPU."""
    # Each call names its device: transformers makes `linspace`, and no other, ignore a default device of meta.
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    bins = torch.linspace(0, SAMPLE_RATE / 2, fft_size // 2 + 1, **exact)
    if view.scale == "mel":
        low, high = (2595 * torch.log10(torch.tensor(1 + f / 700, **exact)) for f in (view.low, view.high))
        edges = 700 * (10 ** (torch.linspace(low, high, view.bands + 2, **exact) / 2595) - 1)
    else:
        edges = torch.logspace(0, 1, view.bands + 2, base=view.high / view.low, **exact) * view.low
    # A band narrower than a bin would be empty: widen it to the bins beside its centre.
    width = SAMPLE_RATE / fft_size
    left = torch.minimum(edges[:-2], edges[1:-1] - width)[:, None]
    right = torch.maximum(edges[2:], edges[1:-1] + width)[:, None]
    centre = edges[1:-1, None]
    weights = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()
