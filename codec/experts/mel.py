"""The mel expert: fixed spectral features, without weights."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
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
        self.dims = {name: view.channels for name, view in self.views.items()}
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
            energy = torch.log10(power + 1e-7)  # -7 to 0
            rhythm = onset_repetition(energy, frames * view.stack, view.rhythm, 3 * self.rate * view.stack)
            energy = energy.unflatten(2, (-1, view.stack))  # (B, bands, T, stack)
            if view.centre:
                mean = (energy * inside).sum((2, 3), keepdim=True) / (inside.sum((2, 3), keepdim=True) * view.stack)
                energy = energy - mean
            else:
                energy = energy + 4
            rhythm = rhythm.unflatten(2, (-1, view.stack)).mean(3)  # (B, rhythm, T)
            features[name] = torch.cat([energy.transpose(2, 3).flatten(1, 2), rhythm], dim=1)  # (B, channels, T)
        return features


def onset_repetition(energy: Tensor, spectra: Tensor, lags: int, reach: int) -> Tensor:
    """How well onsets repeat after 1 to `lags` spectra: the autocorrelation of the rise in loudness around each moment.

    Tempo is nothing that one spectrum shows, and hard to learn from a few hundred melodies; from this a linear layer
    reads it (Grosche, Müller and Kurth, 2010: the cyclic tempogram).

    Args:
        energy: (B, bands, T) logarithmic.
        spectra: (B,) of each clip; what lies beyond is passed over.
        lags: channels of the result.
        reach: spectra before and after each moment that are taken together.

    Returns:
        (B, lags, T), -1 to 1; 0 where nothing rises, as in silence.
    """
    if not lags:
        return energy.new_zeros(len(energy), 0, energy.shape[2])
    inside = length_mask(spectra, energy.shape[2])[:, None].to(energy.dtype)  # (B, 1, T)
    rise = F.pad(energy.diff(dim=2).clamp(min=0).mean(1, keepdim=True), (1, 0)) * inside  # (B, 1, T)

    def around(values: Tensor) -> Tensor:
        return F.avg_pool1d(values, 2 * reach + 1, stride=1, padding=reach)

    rise = (rise - around(rise) / around(inside).clamp(min=1e-6)) * inside
    later = F.pad(rise, (0, lags)).unfold(2, lags + 1, 1)[:, 0].transpose(1, 2)  # (B, lags + 1, T): 0, 1, ... later
    loudness = around(later.square())  # (B, lags + 1, T)
    return around(rise * later[:, 1:]) / ((loudness[:, :1] * loudness[:, 1:]).sqrt() + 1e-6)


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
