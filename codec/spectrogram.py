"""The time-frequency front end of the small scalar autoencoder: waveform <-> log-magnitude frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 1e-4  # amplitude added before the logarithm: 80 dB below a full-scale sine
CENTRE, SPREAD = -7.0, 1.7  # scale log amplitudes to the order of 1: silence is -1.3, a full-scale sine 4.1


class LogMagnitudeSpectrogram(nn.Module):
    """Log magnitudes of a short-time Fourier transform, and a waveform that has these magnitudes.

    The frames hold no phase. A model that codes them is not asked to code what no listener hears and no language model
    could predict; the phase is found afterwards as the one most consistent with the magnitudes: the fast Griffin-Lim
    algorithm (Perraudin et al. 2013), deterministic, from zero phase. It looks at the whole clip, so it is not causal.

    A clip of n samples, n a multiple of `hop`, has exactly n / hop frames: frame t is centred on sample (t + 1/2) hop.

    fft_size: window length in samples, a periodic Hann window; 75% overlap (fft_size = 4 hop) or more
    hop: samples between frames
    iterations: of Griffin-Lim in `synthesise`
    """

    def __init__(self, fft_size: int, hop: int, iterations: int, momentum: float = 0.99):
        super().__init__()
        if fft_size < 4 * hop or (fft_size - hop) % 2:
            raise ValueError(f"fft_size {fft_size} must be even with hop {hop} and at least four times as long")
        self.fft_size, self.hop, self.iterations, self.momentum = fft_size, hop, iterations, momentum
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)

    @property
    def bands(self) -> int:
        return self.fft_size // 2 + 1

    def transform(self, waveforms: Tensor) -> Tensor:
        """(B, n) -> complex (B, bands, n / hop); silence is assumed outside the clip."""
        edge = (self.fft_size - self.hop) // 2
        padded = F.pad(waveforms, (edge, edge))
        return torch.stft(padded, self.fft_size, self.hop, window=self.window, center=False, return_complex=True)

    def invert(self, spectrum: Tensor, present: Tensor | None = None) -> Tensor:
        """Complex (B, bands, T) -> (B, T hop): least-squares inverse by windowed overlap-add.

        present: (B, T) 1 for the frames of each clip, 0 beyond its end; all are present by default
        """
        frames = spectrum.shape[-1]
        length = (frames - 1) * self.hop + self.fft_size
        edge = (self.fft_size - self.hop) // 2

        def overlap_add(pieces: Tensor) -> Tensor:  # (B, fft_size, T) -> (B, T hop)
            summed = F.fold(pieces, (1, length), (1, self.fft_size), stride=(1, self.hop))
            return summed[:, 0, 0, edge : length - edge]

        pieces = torch.fft.irfft(spectrum, n=self.fft_size, dim=1) * self.window[:, None]
        if present is None:
            present = torch.ones(1, frames, device=pieces.device)
        weight = overlap_add(self.window.square()[:, None] * present[:, None])
        return overlap_add(pieces) / weight.clamp(min=1e-3)  # below it only where no frame is present

    def analyse(self, waveforms: Tensor) -> Tensor:
        """(B, n) -> standardised log amplitudes (B, bands, n / hop)."""
        amplitude = self.transform(waveforms).abs() * (2.0 / self.window.sum())
        return ((amplitude + FLOOR).log() - CENTRE) / SPREAD

    def amplitudes(self, frames: Tensor) -> Tensor:
        """Standardised log amplitudes -> amplitudes; that of a full-scale sine is 1."""
        return ((frames * SPREAD + CENTRE).clamp(max=1.0).exp() - FLOOR).clamp(min=0.0)

    def magnitudes(self, frames: Tensor) -> Tensor:
        """Standardised log amplitudes -> magnitudes in the scale of `transform`."""
        return self.amplitudes(frames) * (self.window.sum() / 2.0)

    def synthesise(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Standardised log amplitudes (B, bands, T) -> waveforms (B, T hop).

        lengths: (B,) samples of each clip; a clip in a batch gives the samples it gives alone, and zeros after its end.
        Gradients reach the frames through the magnitudes; the phase is taken as a constant.
        """
        target = self.magnitudes(frames)  # (B, bands, T)
        present = None
        if lengths is not None:
            count = -(-lengths // self.hop)
            present = (torch.arange(frames.shape[-1], device=frames.device) < count[:, None]).to(target.dtype)  # (B, T)
            target = target * present[:, None]
        return self._inside(self.invert(target * self._consistent_phase(target.detach(), present), present), present)

    def _inside(self, waveforms: Tensor, present: Tensor | None) -> Tensor:
        """Silence beyond the last frame of each clip."""
        return waveforms if present is None else waveforms * present.repeat_interleave(self.hop, dim=1)

    @torch.no_grad()
    def _consistent_phase(self, target: Tensor, present: Tensor | None) -> Tensor:
        phase = torch.ones_like(target, dtype=torch.complex64)
        previous = torch.zeros_like(phase)
        for _ in range(self.iterations):
            consistent = self.transform(self._inside(self.invert(target * phase, present), present))
            phase = consistent + self.momentum * (consistent - previous)
            phase = phase / phase.abs().clamp(min=1e-12)
            previous = consistent
        return phase
