"""How far an error of scalar latents is heard, which the flow loss weighs it by.

Scalar latents spread what a sound is evenly over their channels, so that rounding harms none of them more than another;
an error of theirs is then far from alike in every direction. On speech, half of the directions hold a twentieth of what
varies on a mel scale, and a loss that counts all alike spends half of the decoder and of the codebooks on them.
Whatever the metric, the velocity that is best on average stays the same: it decides what a small decoder learns first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from codec.layers.masks import length_mask
from codec.layers.spectrogram import LogMagnitudeSpectrogram
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.reasoning.scalar_layers import mel_weights
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, load_batch

FFT_SIZE, HOP = 960, 240  # samples of the spectra in which an error is heard
RIDGE = 1e-3  # of the mean power of a channel


@torch.no_grad()
def latent_frames(scalar: ScalarAutoencoder, crops: AudioCrops, batches: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Frames of the first batches of crops, those beyond a clip left out.

    Yields:
        Latents (N, latent_dim), and of the same frames log magnitudes (N, bands, 4), each band in such a unit that
        mean squares are taken over the mel scale.
    """
    device = next(scalar.parameters()).device
    spectrogram = LogMagnitudeSpectrogram(FFT_SIZE, HOP, iterations=0).to(device)
    weights = mel_weights(spectrogram.bands, SAMPLE_RATE).to(device)
    for index in range(batches):
        waveforms, lengths = (x.to(device) for x in load_batch(crops.batch(index)))
        latents = scalar.encode(waveforms, lengths).transpose(1, 2)  # (B, T25, latent_dim)
        spectra = spectrogram.analyse(scalar.pad(waveforms, lengths)) * weights[:, None]  # (B, bands, T100)
        mask = length_mask(-(-lengths // scalar.config.samples_per_frame), latents.shape[1])
        steps = scalar.config.samples_per_frame // HOP
        yield latents[mask], spectra.unflatten(-1, (-1, steps)).movedim(2, 1)[mask]


def mel_metric(latents: Tensor, spectra: Tensor, share: float) -> Tensor:
    """Square root of the metric of an error of latents: of e, `e @ root` is what is squared and averaged.

    Args:
        latents: (N, latent_dim), as the flow has them.
        spectra: (N, ...) of the same frames, see `latent_frames`.
        share: of the metric that is the spectra's, as far as a linear map of the latents tells them; the rest counts
            every direction alike.

    Returns:
        (latent_dim, latent_dim), symmetric, whose squared singular values have a mean of 1.
    """
    x, y = (values.flatten(1).double() - values.flatten(1).double().mean(0) for values in (latents, spectra))
    power = x.T @ x
    power.diagonal().add_(RIDGE * power.diagonal().mean())
    heard = torch.linalg.solve(power, x.T @ y)  # (latent_dim, bands x steps)
    metric = heard @ heard.T
    metric = share * metric / metric.diagonal().mean() + (1 - share) * torch.eye(len(metric)).to(metric)
    values, directions = torch.linalg.eigh(metric)
    return ((directions * values.clamp(min=0).sqrt()) @ directions.T).float()
