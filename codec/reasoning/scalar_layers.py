"""The parts of the scalar autoencoder: convolutions that keep to a clip's length, stages, principal components."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.layers.masks import length_mask

DILATIONS = (1, 3, 5, 7, 9)  # of the five residual units of a stage
LATENT_DEVIATION = 0.5  # of a principal component's coefficient, before tanh


def keep(x: Tensor, frames: Tensor | None) -> Tensor:
    """Zero what lies beyond `frames` (B,) time steps, so that a clip in a batch is computed as if alone."""
    if frames is None:
        return x
    return x * length_mask(frames, x.shape[-1])[:, None]


class Conv(nn.Conv1d):
    """Convolution that keeps length / stride: `dilation (kernel - 1)` zeros before the signal, or around it."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int = 1, dilation: int = 1, causal: bool = True):
        super().__init__(ins, outs, kernel, stride=stride, dilation=dilation)
        reach = dilation * (kernel - 1)
        # A strided kernel that is not causal is centred on its stride: (kernel - stride) / 2 steps on each side.
        self.pad = (reach, 0) if causal else ((reach - stride + 1) // 2, reach - (reach - stride + 1) // 2)

    def forward(self, x: Tensor, frames: Tensor | None = None) -> Tensor:
        return super().forward(F.pad(keep(x, frames), self.pad))


class TransposedConv(nn.ConvTranspose1d):
    """Transposed convolution that gives exactly length * stride steps: the surplus is cut at the end, or at both."""

    def __init__(self, ins: int, outs: int, kernel: int, stride: int, causal: bool):
        super().__init__(ins, outs, kernel, stride=stride)
        self.cut = 0 if causal else (kernel - stride) // 2

    # Called like `Conv`; torch's own has a wanted size in the place of `frames`.
    def forward(self, x: Tensor, frames: Tensor | None = None) -> Tensor:  # type: ignore[override]
        length = x.shape[-1] * self.stride[0]
        return super().forward(keep(x, frames))[..., self.cut : self.cut + length]


class ResidualUnit(nn.Module):
    """Dilated convolution, PReLU, pointwise convolution, PReLU, added to the input."""

    def __init__(self, channels: int, kernel: int, dilation: int, causal: bool):
        super().__init__()
        self.conv1 = weight_norm(Conv(channels, channels, kernel, dilation=dilation, causal=causal))
        self.conv2 = weight_norm(Conv(channels, channels, 1))
        self.activation1 = nn.PReLU()
        self.activation2 = nn.PReLU()

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        return x + self.activation2(self.conv2(self.activation1(self.conv1(x, frames))))


class _Resampler(nn.Module):
    """Holds the strided convolution of a stage under the published name `layer`."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = weight_norm(layer)


class EncoderStage(nn.Module):
    """Five residual units, then a strided convolution to twice the channels and an activation shared by all stages."""

    def __init__(self, channels: int, factor: int, kernel: int, res_kernel: int, causal: bool):
        super().__init__()
        self.convs = nn.ModuleList(ResidualUnit(channels, res_kernel, d, causal) for d in DILATIONS)
        self.down_conv = _Resampler(Conv(channels, 2 * channels, kernel, stride=factor, causal=causal))

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        for unit in self.convs:
            x = unit(x, frames)
        return self.down_conv.layer(x, frames)


class DecoderStage(nn.Module):
    """Transposed convolution to half the channels, then five residual units."""

    def __init__(self, channels: int, factor: int, kernel: int, res_kernel: int, causal: bool):
        super().__init__()
        self.up_conv = _Resampler(TransposedConv(channels, channels // 2, kernel, factor, causal))
        self.convs = nn.ModuleList(ResidualUnit(channels // 2, res_kernel, d, causal) for d in DILATIONS)
        self.factor = factor

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        x = self.up_conv.layer(x, frames)
        frames = None if frames is None else frames * self.factor
        for unit in self.convs:
            x = unit(x, frames)
        return x


class SampleFilter(nn.Module):
    """Convolution and PReLU beside the averaging or repeating of `num_samples` samples."""

    def __init__(self, channels: int, kernel: int, causal: bool):
        super().__init__()
        self.conv = Conv(channels, channels, kernel, causal=causal)
        self.activation = nn.PReLU()

    def forward(self, x: Tensor, frames: Tensor | None) -> Tensor:
        return self.activation(self.conv(x, frames))


class PrincipalComponents(nn.Module):
    """A fixed linear code of the signal, beside which a network learns the residual.

    `factor` frames of `bands` values give `latents` coefficients, each of deviation LATENT_DEVIATION over the fitted
    signals. Rounding adds the same noise to every coefficient, so the code is that of a Gaussian source over parallel
    channels: reverse water-filling (Cover and Thomas 2006, "Elements of Information Theory", §10.3.3) keeps the
    strongest principal components and drops the rest; scaling each to a power in proportion to its deviation (neither
    to its power nor equal) minimises, for small noise, the error of a linear decoder at a given sum of the powers
    (Lee and Petersen 1976, "Optimal linear coding for vector channels"). An orthonormal cosine transform then spreads
    the components over all coefficients, which gives all of them nearly the same range.

    Until it is fitted it is zero: coefficients and signals.
    """

    mean: Tensor  # (bands, factor)
    encoder: Tensor  # (latents, bands, factor)
    decoder: Tensor  # (latents, bands, factor)

    def __init__(self, bands: int, latents: int, factor: int):
        super().__init__()
        self.factor = factor
        self.register_buffer("mean", torch.zeros(bands, factor))
        self.register_buffer("encoder", torch.zeros(latents, bands, factor))
        self.register_buffer("decoder", torch.zeros(latents, bands, factor))

    @torch.no_grad()
    def fit(self, vectors: Tensor, weights: Tensor) -> None:
        """Fit to (N, bands, factor) stretches of signal; weights (bands,): how much an error of each band counts."""
        self.mean.copy_(vectors.double().mean(0))
        flat, latents = ((vectors - self.mean) * weights[:, None]).flatten(1).double(), len(self.encoder)
        power, directions = torch.linalg.eigh(flat.T @ flat / len(flat))  # ascending
        directions = directions[:, -latents:].T  # (latents, bands factor)
        deviation = power[-latents:].clamp(min=1e-6).sqrt()
        rotation = _cosines(latents)
        shares = (rotation.square() @ deviation).sqrt()  # deviation of each coefficient after the rotation
        encoder = LATENT_DEVIATION / shares[:, None] * (rotation / deviation.sqrt()) @ directions
        decoder = shares[:, None] / LATENT_DEVIATION * (rotation * deviation.sqrt()) @ directions
        self.encoder.copy_(encoder.view_as(self.encoder) * weights[:, None])
        self.decoder.copy_(decoder.view_as(self.decoder) / weights[:, None])

    def down(self, signal: Tensor) -> Tensor:
        """(B, bands, T factor) -> coefficients (B, latents, T)."""
        centred = signal - self.mean.repeat(1, signal.shape[-1] // self.factor)
        return F.conv1d(centred, self.encoder, stride=self.factor)

    def up(self, coefficients: Tensor) -> Tensor:
        """(B, latents, T) -> the signal (B, bands, T factor) that they stand for."""
        signal = F.conv_transpose1d(coefficients, self.decoder, stride=self.factor)
        return signal + self.mean.repeat(1, coefficients.shape[-1])


def mel_weights(bands: int, sample_rate: int) -> Tensor:
    """(bands,) weights of the bins of a spectrum, of mean square 1: squared, the slope of the mel scale there."""
    frequencies = torch.linspace(0.0, sample_rate / 2, bands)
    slope = 1.0 / (700.0 + frequencies)  # of 1127 ln(1 + f / 700), but for a factor
    return (slope / slope.mean()).sqrt()


def _cosines(size: int) -> Tensor:
    """Orthonormal discrete cosine transform (size, size), float64: every row spreads over all columns."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(torch.pi / size * (place + 0.5) * place[:, None]) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix
