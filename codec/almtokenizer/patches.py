"""Patchify and unpatchify: sound <-> patches of a few milliseconds, by convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.almtokenizer.config import PatchesConfig
from codec.layers.acoustic import AcousticDecoder, AcousticEncoder
from codec.layers.spectrogram import LogMagnitudeSpectrogram

_KERNEL = 7  # of the residual convolutions over spectra


class Patchify(nn.Module):
    """Waveforms (B, samples T) -> patches (B, T, dim), by strided convolutions.

    Around a clip is silence, in every layer: its patches are those of the same clip with more of it in a batch.

    Attributes:
        reach: Patches on either side of one whose samples it depends on, at most.
    """

    def __init__(self, config: PatchesConfig, dim: int) -> None:
        super().__init__()
        self.samples = config.samples
        self.spectrogram = _spectrogram(config)
        if self.spectrogram is None:
            self.convolutions: nn.Module = AcousticEncoder(config.encoder_channels, config.downsampling_ratios, dim)
            self.reach = self.convolutions.reach
            return
        ratio = config.spectra
        kernel, padding = (3, 1) if ratio == 1 else (2 * ratio, ratio // 2)
        self.convolutions = nn.Sequential(
            nn.Conv1d(self.spectrogram.bands, dim, 3, padding=1),
            nn.GELU(),
            nn.Conv1d(dim, dim, kernel, stride=ratio, padding=padding),
        )
        hop = config.samples // ratio
        self.reach = -(-((kernel + 1) * hop + config.fft_size) // config.samples)

    def forward(self, waveforms: Tensor) -> Tensor:
        edge = self.reach * self.samples
        waveforms = F.pad(waveforms, (edge, edge))
        signal = waveforms[:, None] if self.spectrogram is None else self.spectrogram.analyse(waveforms)
        return self.convolutions(signal).transpose(1, 2)[:, self.reach : -self.reach]


class Unpatchify(nn.Module):
    """Patches (B, T, dim) -> waveforms (B, samples T), which nothing bounds.

    Attributes:
        reach: Patches on either side of one that its samples depend on, at most.
    """

    def __init__(self, config: PatchesConfig, dim: int) -> None:
        super().__init__()
        self.spectrogram = _spectrogram(config)
        if self.spectrogram is None:
            self.convolutions: nn.Module = AcousticDecoder(config.decoder_channels, config.upsampling_ratios, dim)
            self.reach = self.convolutions.reach
            return
        ratio = config.spectra
        kernel, padding = (3, 1) if ratio == 1 else (2 * ratio, ratio // 2)
        self.convolutions = nn.Sequential(
            nn.ConvTranspose1d(dim, dim, kernel, stride=ratio, padding=padding),
            *(ResidualConvolution(dim) for _ in range(config.convolutions)),
            nn.Conv1d(dim, 2 * self.spectrogram.bands, 1),
        )
        steps = kernel + config.convolutions * (_KERNEL // 2)
        self.reach = -(-(steps * (config.samples // ratio) + config.fft_size) // config.samples)

    def forward(self, patches: Tensor) -> Tensor:
        made = self.convolutions(patches.transpose(1, 2))
        if self.spectrogram is None:
            return made[:, 0]
        levels, phases = made.transpose(1, 2).float().chunk(2, dim=2)  # (B, spectra T, bands) each
        spectrum = torch.polar(self.spectrogram.magnitudes(levels), phases)
        return self.spectrogram.invert(spectrum, self.spectrogram.overlap(levels.new_ones(levels.shape[:2])))


class ResidualConvolution(nn.Module):
    """A depthwise convolution and a feed-forward layer, added to what comes in (ConvNeXt, Liu et al. 2022)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, _KERNEL, padding=_KERNEL // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 3 * dim)
        self.down = nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, dim, T)
        inner = self.norm(self.depthwise(x).transpose(1, 2))
        return x + self.down(F.gelu(self.up(inner))).transpose(1, 2)


def _spectrogram(config: PatchesConfig) -> LogMagnitudeSpectrogram | None:
    if config.front_end == "waveform":
        return None
    return LogMagnitudeSpectrogram(config.fft_size, config.samples // config.spectra, iterations=0)
