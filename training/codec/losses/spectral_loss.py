"""Spectral losses: the distance of two sounds at several time and frequency resolutions.

The reconstruction terms of neural codecs (Yamamoto et al. 2020, "Parallel WaveGAN"; Kumar et al. 2023, "DAC"), with
which ReasoningCodec's scalar autoencoder is trained ("UniAudio 2.0" §3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.layers.masks import length_mask
from codec.layers.spectrogram import LogMagnitudeSpectrogram

AMPLITUDE_FLOOR = 1e-3  # relative to a full-scale sine: 60 dB down; quieter differences count for little


def masked_mean(values: Tensor, frames: Tensor | None) -> Tensor:
    """Mean of (B, C, T) over the first `frames` (B,) steps of each row; over all where frames is None."""
    if frames is None:
        return values.mean()
    kept = length_mask(frames, values.shape[-1]).to(values.dtype)  # (B, T)
    return (values * kept[:, None]).sum() / (kept.sum() * values.shape[1]).clamp(min=1)


class SpectralResolution(nn.Module):
    """Distance between two waveforms at one window length: log-mel L1, log-magnitude L1 and spectral convergence.

    Args:
        fft_size: Hann window in samples; the hop is a quarter of it.
        mel_bands: of the mel term.
        sample_rate: of the waveforms.
    """

    def __init__(self, fft_size: int, mel_bands: int, sample_rate: int):
        super().__init__()
        self.fft_size, self.hop = fft_size, fft_size // 4
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        filters = melscale_fbanks(fft_size // 2 + 1, 0.0, sample_rate / 2, mel_bands, sample_rate)  # (bands, mels)
        self.register_buffer("filters", filters, persistent=False)

    def amplitudes(self, waveforms: Tensor) -> Tensor:
        """(B, n) -> (B, fft_size / 2 + 1, ceil(n / hop) + 3); a full-scale sine has amplitude 1."""
        # Every sample lies in four windows, so that both ends of a short clip count as much as its middle.
        surplus = -waveforms.shape[-1] % self.hop
        padded = F.pad(waveforms, (self.fft_size - self.hop, self.fft_size - self.hop + surplus))
        spectrum = torch.stft(padded, self.fft_size, self.hop, window=self.window, center=False, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() * (2.0 / self.window.sum())

    def forward(self, predicted: Tensor, target: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """The three terms, scalars; arguments as for MultiResolutionSpectralLoss.forward."""
        frames = None if lengths is None else -(-lengths // self.hop) + 3
        predicted, target = self.amplitudes(predicted), self.amplitudes(target)
        mel = torch.log(predicted.transpose(1, 2) @ self.filters + AMPLITUDE_FLOOR) - torch.log(
            target.transpose(1, 2) @ self.filters + AMPLITUDE_FLOOR
        )
        magnitude = torch.log(predicted + AMPLITUDE_FLOOR) - torch.log(target + AMPLITUDE_FLOOR)
        difference = masked_mean((predicted - target).square(), frames)
        return {
            "mel": masked_mean(mel.transpose(1, 2).abs(), frames),
            "magnitude": masked_mean(magnitude.abs(), frames),
            # The floor keeps silence from dividing by nothing.
            "convergence": (difference / (masked_mean(target.square(), frames) + 1e-8) + 1e-12).sqrt(),
        }


class MultiResolutionSpectralLoss(nn.Module):
    """Sum of log-mel L1, log-magnitude L1 and spectral convergence, each the mean over several window lengths.

    Args:
        sample_rate: of the waveforms.
        fft_sizes: windows in samples.
        mel_bands: for each window (no more than its bins can fill).
        mel_weight: of the log-mel term.
        magnitude_weight: of the log-magnitude term.
        convergence_weight: of the spectral convergence.
    """

    def __init__(
        self,
        sample_rate: int = 24_000,
        fft_sizes: Sequence[int] = (512, 1024, 2048),
        mel_bands: Sequence[int] = (40, 80, 80),
        mel_weight: float = 1.0,
        magnitude_weight: float = 0.5,
        convergence_weight: float = 0.5,
    ):
        super().__init__()
        self.resolutions = nn.ModuleList(
            SpectralResolution(size, bands, sample_rate) for size, bands in zip(fft_sizes, mel_bands, strict=True)
        )
        self.weights = {"mel": mel_weight, "magnitude": magnitude_weight, "convergence": convergence_weight}

    def forward(
        self, predicted: Tensor, target: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its three unweighted terms.

        Args:
            predicted: (B, n) waveforms in [-1, 1], zero beyond each clip's length.
            target: likewise.
            lengths: (B,) samples; None: all are of length n.

        Raises:
            ValueError: the shapes differ.
        """
        if predicted.shape != target.shape:
            raise ValueError(f"predicted {tuple(predicted.shape)} and target {tuple(target.shape)} differ in shape")
        each = [resolution(predicted, target, lengths) for resolution in self.resolutions]
        terms = {name: torch.stack([values[name] for values in each]).mean() for name in self.weights}
        return sum(weight * terms[name] for name, weight in self.weights.items()), terms


class LogMagnitudeLoss(nn.Module):
    """Distance between two standardised log-magnitude spectrograms (`codec.spectrogram`), without a waveform.

    L1 over the bins, in which a loud bin weighs up to `emphasis` (the level of a single noisy bin is
    chance, that of a harmonic is not), plus `mel_weight` times log-mel L1 in nepers.
    """

    def __init__(
        self,
        spectrogram: LogMagnitudeSpectrogram,
        sample_rate: int,
        emphasis: float = 3.0,
        mel_weight: float = 1.0,
    ):
        super().__init__()
        # In a list, so that the spectrogram is not registered twice in whatever holds both.
        self._spectrogram, self.emphasis, self.mel_weight = [spectrogram], emphasis, mel_weight
        mels = min(80, spectrogram.bands // 6)  # so few that every filter holds a bin
        filters = melscale_fbanks(spectrogram.bands, 0.0, sample_rate / 2, mels, sample_rate)  # (bands, mels)
        self.register_buffer("filters", filters, persistent=False)

    def _log_mel(self, frames: Tensor) -> Tensor:
        amplitudes = self._spectrogram[0].amplitudes(frames).transpose(1, 2)  # (B, T, bands)
        return torch.log(amplitudes @ self.filters + AMPLITUDE_FLOOR).transpose(1, 2)

    def forward(
        self, predicted: Tensor, target: Tensor, frames: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and its two unweighted terms. predicted, target: (B, bands, T); frames: (B,) of each clip."""
        loudness = ((target + 2) / 5).clamp(0, 1)  # 0.14 in silence, 1 above -16 dB
        terms = {
            "bins": masked_mean((predicted - target).abs() * (1 + (self.emphasis - 1) * loudness), frames),
            "mel": masked_mean((self._log_mel(predicted) - self._log_mel(target)).abs(), frames),
        }
        return terms["bins"] + self.mel_weight * terms["mel"], terms
