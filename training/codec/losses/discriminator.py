"""The discriminator of the scalar autoencoder: tells recorded from decoded sound, at several resolutions.

Multi-scale STFT discriminator (Défossez et al. 2022, "High Fidelity Neural Audio Compression"), hinge losses and
feature matching, as the waveform autoencoder of ReasoningCodec is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


@dataclass
class DiscriminatorOutput:
    """Output of one resolution for B waveforms."""

    # (B, 1, T, F'), high for recorded sound
    logits: Tensor
    # hidden layers, (B, channels, T, F'') each
    features: list[Tensor]


class ResolutionDiscriminator(nn.Module):
    """Two-dimensional convolutions over the complex spectrum of one window length; the frequency axis shrinks by 8."""

    def __init__(self, fft_size: int, channels: int):
        super().__init__()
        self.fft_size = fft_size
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)
        layers = [nn.Conv2d(2, channels, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            )
        layers.append(nn.Conv2d(channels, channels, (3, 3), padding=(1, 1)))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.output = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveforms: Tensor) -> DiscriminatorOutput:
        """(B, n), n at least 1."""
        spectrum = torch.stft(
            F.pad(waveforms, (self.fft_size // 2, self.fft_size // 2)),
            self.fft_size,
            self.fft_size // 4,
            window=self.window,
            center=False,
            normalized=True,
            return_complex=True,
        )
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, T, bins)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return DiscriminatorOutput(self.output(x), features)


class Discriminator(nn.Module):
    """One `ResolutionDiscriminator` per window length.

    Args:
        fft_sizes: windows in samples.
        channels: of every hidden layer.
    """

    def __init__(self, fft_sizes: Sequence[int] = (512, 1024, 2048), channels: int = 32):
        super().__init__()
        self.resolutions = nn.ModuleList(ResolutionDiscriminator(size, channels) for size in fft_sizes)

    def forward(self, waveforms: Tensor) -> list[DiscriminatorOutput]:
        """Output for (B, n) waveforms, one per resolution."""
        return [resolution(waveforms) for resolution in self.resolutions]


def discriminator_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Hinge: recorded sound above +1, decoded sound below -1."""
    return sum(
        F.relu(1 - r.logits).mean() + F.relu(1 + f.logits).mean() for r, f in zip(real, fake, strict=True)
    ) / len(real)


def adversarial_loss(fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Decoded sound above +1: the autoencoder's side of the hinge."""
    return sum(F.relu(1 - f.logits).mean() for f in fake) / len(fake)


def feature_matching_loss(real: Sequence[DiscriminatorOutput], fake: Sequence[DiscriminatorOutput]) -> Tensor:
    """Mean absolute difference of the hidden layers, each relative to its size for the recorded sound."""
    ratios = [
        (a.detach() - b).abs().mean() / a.detach().abs().mean().clamp(min=1e-6)
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r.features, f.features, strict=True)
    ]
    return sum(ratios) / len(ratios)
