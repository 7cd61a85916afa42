"""From waveform to frames and back: the convolutions of the Descript Audio Codec (Kumar et al. 2023).

Activations are periodic ("snake"); each stage of the encoder divides time by its ratio and doubles the
channels, each of the decoder the reverse. T frames are exactly T times the product of the ratios samples, either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from codec.layers.fast_conv import FastConv1d, FastConvTranspose1d
from codec.tensor_files import Stored

_DILATIONS = (1, 3, 9)  # of the three residual units of a stage
_CHUNK = 2**16  # values that are activated at once, without a gradient
_KERNEL = 7  # of their first convolutions, and of those at the waveform
_NORMED = (  # how the names of a weight's direction and length end
    (".parametrizations.weight.original1", ".parametrizations.weight.original0"),
    (".weight_v", ".weight_g"),
)


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with an alpha for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        over = (self.alpha + 1e-9).reciprocal()
        if torch.is_grad_enabled():
            return x + over * torch.sin(self.alpha * x).pow(2)
        # The same by pieces of time, that stay in a processor's cache, and in one place.
        frames = x.transpose(1, 2)  # (B, T, C)
        made, alpha, over = torch.empty_like(frames), self.alpha[..., 0], over[..., 0]
        for part, into in zip(
            frames.split(step := max(1, _CHUNK // frames.shape[2]), 1), made.split(step, 1), strict=True
        ):
            torch.mul(part, alpha, out=into)
            torch.addcmul(part, into.sin_().square_(), over, out=into)
        return made.transpose(1, 2)


class ResidualUnit(nn.Module):
    """Two convolutions, each after a snake, added to what comes in; the first reaches over `dilation` times 3 steps."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.snake_in = Snake(channels)
        self.conv_in = FastConv1d(channels, channels, _KERNEL, dilation=dilation, padding=_KERNEL // 2 * dilation)
        self.snake_out = Snake(channels)
        self.conv_out = FastConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        more = self.conv_out(self.snake_out(self.conv_in(self.snake_in(x))))
        return x + more if torch.is_grad_enabled() else more.add_(x)


class Downsampling(nn.Module):
    """A stage of the encoder: (B, C, ratio T) -> (B, 2 C, T)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(ResidualUnit(channels, dilation) for dilation in _DILATIONS)
        self.snake = Snake(channels)
        self.conv = FastConv1d(channels, 2 * channels, 2 * ratio, stride=ratio, padding=(ratio + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit(x)
        return self.conv(self.snake(x))


class Upsampling(nn.Module):
    """A stage of the decoder: (B, C, T) -> (B, C / 2, ratio T)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.snake = Snake(channels)
        # An odd ratio leaves one step too few, which output_padding adds.
        self.conv = FastConvTranspose1d(
            channels, channels // 2, 2 * ratio, stride=ratio, padding=(ratio + 1) // 2, output_padding=ratio % 2
        )
        self.units = nn.ModuleList(ResidualUnit(channels // 2, dilation) for dilation in _DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.snake(x))
        for unit in self.units:
            x = unit(x)
        return x


class AcousticEncoder(nn.Module):
    """Waveforms (B, 1, hop T) -> acoustic frames (B, dim, T).

    Args:
        channels: Of the first stage; each doubles them.
        ratios: Strides of the stages; their product is the hop.
        dim: Channels of the frames.

    Attributes:
        reach: Frames on either side of one whose samples it depends on, at most.
    """

    def __init__(self, channels: int, ratios: Sequence[int], dim: int) -> None:
        super().__init__()
        self.conv_in = FastConv1d(1, channels, _KERNEL, padding=_KERNEL // 2)
        self.stages = nn.ModuleList(Downsampling(channels * 2**i, ratio) for i, ratio in enumerate(ratios))
        self.snake = Snake(channels * 2 ** len(ratios))
        self.conv_out = FastConv1d(channels * 2 ** len(ratios), dim, 3, padding=1)
        steps = 1  # that the last convolution reaches over, from the frames to the waveform
        for ratio in reversed(ratios):
            steps = (steps + 2) * ratio + _KERNEL // 2 * sum(_DILATIONS)
        self.reach = -(-(steps + _KERNEL // 2) // math.prod(ratios))

    def forward(self, waveforms: Tensor) -> Tensor:
        x = self.conv_in(waveforms)
        for stage in self.stages:
            x = stage(x)
        return self.conv_out(self.snake(x))


class AcousticDecoder(nn.Module):
    """Acoustic frames (B, dim, T) -> waveforms (B, 1, hop T), which nothing bounds.

    Args:
        channels: Of the first stage; each halves them.
        ratios: Strides of the stages; their product is the hop.
        dim: Channels of the frames.

    Attributes:
        reach: Frames on either side of one that its samples depend on, at most.
    """

    def __init__(self, channels: int, ratios: Sequence[int], dim: int) -> None:
        super().__init__()
        self.conv_in = FastConv1d(dim, channels, _KERNEL, padding=_KERNEL // 2)
        self.stages = nn.ModuleList(Upsampling(channels // 2**i, ratio) for i, ratio in enumerate(ratios))
        self.snake = Snake(channels // 2 ** len(ratios))
        self.conv_out = FastConv1d(channels // 2 ** len(ratios), 1, _KERNEL, padding=_KERNEL // 2)
        self.reach = _KERNEL // 2
        for ratio in reversed(ratios):  # from the waveform to the frames
            self.reach += _KERNEL // 2 * sum(_DILATIONS)
            self.reach = -(-self.reach // ratio) + 1
        self.reach += _KERNEL // 2

    def forward(self, frames: Tensor) -> Tensor:
        x = self.conv_in(frames)
        for stage in self.stages:
            x = stage(x)
        return self.conv_out(self.snake(x))


def apply_weight_norm(module: nn.Module) -> None:
    """Have every convolution inside learn the direction and the length of its weights apart, for training."""
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d) and not is_parametrized(part):
            weight_norm(part)


def fold_weight_norm(module: nn.Module) -> None:
    """Make plain weights again, the same, of those that `apply_weight_norm` split."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d) and is_parametrized(part):
            remove_parametrizations(part, "weight", leave_parametrized=True)


def split_weights(tensors: Mapping[str, Tensor | Stored]) -> dict[str, tuple[str, str]]:
    """Weights that a file holds split by weight norm: name of the whole weight -> names of its length and direction.

    They have names of PyTorch's present form or of the former one.
    """
    found = {}
    for name, direction in tensors.items():
        for end, other in _NORMED:
            length = tensors.get(name.removesuffix(end) + other) if name.endswith(end) else None
            if length is not None and tuple(length.shape) == (*direction.shape[:1], *(1,) * (len(direction.shape) - 1)):
                found[name.removesuffix(end) + ".weight"] = (name.removesuffix(end) + other, name)
    return found


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with whole weights in place of lengths and directions; all else as it is."""
    plain = dict(tensors)
    for name, (length, direction) in split_weights(tensors).items():
        plain[name] = torch._weight_norm(plain.pop(direction), plain.pop(length), 0)
    return plain
