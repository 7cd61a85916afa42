"""The semantic encoder and decoder of X-Codec: residual convolutions on the features of the teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from codec.xcodec.config import SemanticConfig


class SemanticUnit(nn.Module):
    """Two convolutions, each after an ELU, added to what comes in: (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        padding = kernel_size // 2 * dilation
        self.conv_in = nn.Conv1d(channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False)
        self.conv_out = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(F.elu(self.conv_in(F.elu(x))))


def _units(channels: int, config: SemanticConfig) -> nn.ModuleList:
    return nn.ModuleList(SemanticUnit(channels, config.unit_kernel_size, d) for d in config.block_dilations)


class SemanticEncoderStage(nn.Module):
    """Residual units, then a convolution that divides time by the stride."""

    def __init__(self, channels_in: int, channels: int, stride: int, config: SemanticConfig) -> None:
        super().__init__()
        self.units = _units(channels_in, config)
        kernel = 3 if stride == 1 else 2 * stride
        self.conv = nn.Conv1d(channels_in, channels, kernel, stride=stride, padding=(kernel - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.units:
            x = unit(x)
        return self.conv(x)


class SemanticDecoderStage(nn.Module):
    """A convolution that multiplies time by the stride, then residual units."""

    def __init__(self, channels_in: int, channels: int, stride: int, config: SemanticConfig) -> None:
        super().__init__()
        self.conv: nn.Module
        if stride == 1:
            self.conv = nn.Conv1d(channels_in, channels, 3, padding=1)
        else:
            padding, missing = (stride + 1) // 2, stride % 2
            self.conv = nn.ConvTranspose1d(channels_in, channels, 2 * stride, stride, padding, missing, bias=False)
        self.units = _units(channels, config)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for unit in self.units:
            x = unit(x)
        return x


class SemanticEncoder(nn.Module):
    """Features of the teacher (B, dim, T times the strides) -> semantic frames (B, dim, T)."""

    def __init__(self, dim: int, config: SemanticConfig) -> None:
        super().__init__()
        widths = [dim, *(dim * ratio for ratio in config.channel_ratios)]
        self.conv_in = nn.Conv1d(dim, dim, config.kernel_size, padding=config.kernel_size // 2, bias=False)
        self.stages = nn.ModuleList(
            SemanticEncoderStage(widths[i], widths[i + 1], stride, config) for i, stride in enumerate(config.strides)
        )

    def forward(self, features: Tensor) -> Tensor:
        x = self.conv_in(features)
        for stage in self.stages:
            x = stage(x)
        return x


class SemanticDecoder(nn.Module):
    """Semantic frames (B, dim, T) -> features as the teacher gives them (B, dim, T times the strides)."""

    def __init__(self, dim: int, config: SemanticConfig) -> None:
        super().__init__()
        widths = [*(dim * ratio for ratio in config.channel_ratios), dim]
        padding = config.kernel_size // 2
        self.conv_in = nn.Conv1d(dim, widths[0], config.kernel_size, padding=padding, bias=False)
        self.stages = nn.ModuleList(
            SemanticDecoderStage(widths[i], widths[i + 1], stride, config) for i, stride in enumerate(config.strides)
        )
        self.conv_out = nn.Conv1d(dim, dim, config.kernel_size, padding=padding, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.conv_in(frames)
        for stage in self.stages:
            x = stage(x)
        return self.conv_out(x)
