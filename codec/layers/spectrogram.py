"""Waveform <-> log-magnitude frames: the front end of networks that must learn on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.masks import length_mask

FLOOR = 1e-4  # amplitude added before the logarithm: 80 dB below a full-scale sine
CENTRE, SPREAD = -7.0, 1.7  # scale log amplitudes to the order of 1: silence is -1.3, a full-scale sine 4.1
PHASE_REACH = 8  # windows; how far the phase search reaches in practice, see `phase_reach`


def phase_reach(fft_size: int, hop: int, iterations: int) -> tuple[int, int]:
    """Samples before and after a sample of `LogMagnitudeSpectrogram.synthesise` on whose frames it depends.

    Every iteration reaches one window further, but what is PHASE_REACH windows away hardly matters: in double
    precision, leaving it out moved samples by 1e-5 of full scale at most. The search enlarges the rounding of float32
    to more.
    """
    searched = min(iterations * (fft_size - hop), PHASE_REACH * fft_size)
    after = (fft_size - hop) // 2  # the inverse transform itself
    return searched + fft_size - after - 1, searched + after


class LogMagnitudeSpectrogram(nn.Module):
    """Log magnitudes of a short-time Fourier transform, and a waveform that has these magnitudes.

    The frames hold no phase, which no language model could predict. It is found afterwards as the one most consistent
    with the magnitudes, by the fast Griffin-Lim algorithm (Perraudin et al. 2013): deterministic, from zero phase. The
    search takes the whole clip, so it is not causal.

    A clip of n samples, n a multiple of `hop`, has exactly n / hop frames: frame t is centred on sample (t + 1/2) hop.

    Args:
        fft_size: Length of the periodic Hann window in samples; a multiple of hop, at least four times (75% overlap).
        hop: Samples between frames.
        iterations: Of Griffin-Lim in `synthesise`.
        momentum: Of the fast variant; 0 is plain Griffin-Lim.
    """

    window: Tensor  # (fft_size,)

    def __init__(self, fft_size: int, hop: int, iterations: int, momentum: float = 0.99) -> None:
        super().__init__()
        if fft_size % hop or fft_size < 4 * hop or fft_size % 2 or hop % 2:
            raise ValueError(f"fft_size {fft_size} must be a multiple, four times or more, of hop {hop}, both even")
        self.fft_size, self.hop, self.iterations, self.momentum = fft_size, hop, iterations, momentum
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)

    @property
    def bands(self) -> int:
        return self.fft_size // 2 + 1

    def transform(self, waveforms: Tensor) -> Tensor:
        """(B, n) -> complex (B, n / hop, bands); silence is assumed outside the clip."""
        edge = (self.fft_size - self.hop) // 2
        pieces = F.pad(waveforms, (edge, edge)).unfold(-1, self.fft_size, self.hop)  # (B, T, fft_size)
        return torch.fft.rfft(pieces * self.window)

    def invert(self, spectrum: Tensor, weight: Tensor) -> Tensor:
        """Complex (B, T, bands) -> (B, T hop): least-squares inverse by windowed overlap-add.

        Args:
            weight: Of every sample, from `overlap`.
        """
        return self._overlap_add(torch.fft.irfft(spectrum, n=self.fft_size) * self.window) / weight

    def overlap(self, present: Tensor) -> Tensor:
        """(B, T) 1 for the frames of each clip, 0 beyond its end -> (B, T hop) sums of the squared windows there."""
        weight = self._overlap_add(self.window.square() * present[..., None])
        return weight.clamp(min=1e-3)  # below it only where no frame is present

    def _overlap_add(self, pieces: Tensor) -> Tensor:
        """(B, T, fft_size) -> (B, T hop), each piece `hop` samples after the one before; cut to the clip."""
        batch, frames, _ = pieces.shape
        ratio, edge = self.fft_size // self.hop, (self.fft_size - self.hop) // 2
        parts = pieces.view(batch, frames, ratio, self.hop)
        summed = pieces.new_zeros(batch, frames + ratio - 1, self.hop)
        for part in range(ratio):
            summed[:, part : part + frames] += parts[:, :, part]
        return summed.flatten(1)[:, edge : edge + frames * self.hop]

    def analyse(self, waveforms: Tensor) -> Tensor:
        """(B, n) -> standardised log amplitudes (B, bands, n / hop)."""
        amplitude = self.transform(waveforms).abs() * (2.0 / self.window.sum())
        return (((amplitude + FLOOR).log() - CENTRE) / SPREAD).transpose(1, 2)

    def amplitudes(self, frames: Tensor) -> Tensor:
        """Standardised log amplitudes -> amplitudes; that of a full-scale sine is 1."""
        return ((frames * SPREAD + CENTRE).clamp(max=1.0).exp() - FLOOR).clamp(min=0.0)

    def magnitudes(self, frames: Tensor) -> Tensor:
        """Standardised log amplitudes -> magnitudes in the scale of `transform`."""
        return self.amplitudes(frames) * (self.window.sum() / 2.0)

    def synthesise(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveforms whose spectra have given magnitudes.

        Gradients reach the frames through the magnitudes; the phase is taken as a constant.

        Args:
            frames: (B, bands, T) standardised log amplitudes.
            lengths: (B,) samples of each clip; None: all have T hop. The samples of a clip do not depend on its batch.

        Returns:
            (B, T hop), zero after each clip's end.
        """
        target = self.magnitudes(frames).transpose(1, 2)  # (B, T, bands)
        present = target.new_ones(target.shape[:2])
        if lengths is not None:
            count = -(-lengths // self.hop)
            present = present * length_mask(count, target.shape[1])
            target = target * present[..., None]
        weight, inside = self.overlap(present), present.repeat_interleave(self.hop, dim=1)
        return self.invert(target * self._consistent_phase(target.detach(), weight, inside), weight) * inside

    @torch.no_grad()
    def _consistent_phase(self, target: Tensor, weight: Tensor, inside: Tensor) -> Tensor:
        phase = torch.ones_like(target, dtype=target.dtype.to_complex())
        previous = torch.zeros_like(phase)
        for _ in range(self.iterations):
            consistent = self.transform(self.invert(target * phase, weight) * inside)
            phase = torch.sgn(consistent + self.momentum * (consistent - previous))
            previous = consistent
        return phase
