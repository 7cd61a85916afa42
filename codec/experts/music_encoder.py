"""The music encoder of ReasoningCodec: a conformer on mel spectra, 25 frames a second.

The published one is a MusicFM (Won et al. 2023), trained by BEST-RQ (Chiu et al. 2022): a mel spectrogram at 100 Hz,
two strided residual convolutions that bring it to 25 Hz and a quarter of the bands, and twelve conformer layers. The
codec takes states 4 ("acoustic") and 11 ("semantic"). training/codec/experts/train_expert.py trains one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from codec.io.errors import UserError
from codec.io.numbers import Layers, Positive, Range, Samples, Width
from codec.layers.conformer import ConformerLayer, rotary_positions
from codec.pretrained import Pretrained
from codec.tokens import SAMPLE_RATE

STACK = 4  # mel frames of one frame: each of the two residual convolutions halves time
_FLOOR = 1e-10  # power below which all is silence: -100 dB


@dataclass(frozen=True)
class MusicEncoderConfig:
    """Sizes of the music encoder. Defaults are the published ones."""

    # width of the conformer
    dim: Width = 1024
    # attention heads of the conformer
    heads: Width = 16
    # width of its feed-forward layers
    feed_forward: Width = 4096
    # conformer layers
    layers: Layers = 12
    # kernel of its depthwise convolutions, in frames; odd
    kernel: Width = 31
    # channels of the residual convolutions before it
    channels: Width = 512
    # bands of the mel spectrogram
    mel_bands: Annotated[int, Range(1, 4096)] = 128
    # window of the mel spectrogram, in samples
    fft_size: Samples = 2048
    # step of the mel spectrogram, in samples; four steps make a frame
    hop: Samples = 240
    # samples per second of the audio it takes
    sample_rate: Annotated[int, Range(1, 768_000)] = SAMPLE_RATE
    # base of the rotary frequencies
    rotary_base: Annotated[float, Range(1)] = 10000.0
    # mean of the mel spectra, in dB; subtracted
    mel_mean: Annotated[float, Range(-1000, 1000)] = 6.768444971712967
    # standard deviation of the mel spectra, in dB; divided by
    mel_std: Positive = 18.417922652295623

    def __post_init__(self) -> None:
        sizes = ("dim", "heads", "feed_forward", "layers", "kernel", "channels", "mel_bands", "fft_size", "hop")
        small = [name for name in (*sizes, "sample_rate", "rotary_base", "mel_std") if not getattr(self, name) > 0]
        if small:
            raise UserError(f"{', '.join(small)} of a music encoder must be above 0")
        if self.dim % (2 * self.heads):
            raise UserError(f"dim {self.dim} of a music encoder must divide into {self.heads} heads of even width")
        if self.kernel % 2 == 0:
            raise UserError(f"kernel {self.kernel} of a music encoder must be odd, so that it has a middle")

    @property
    def samples_per_frame(self) -> int:
        return STACK * self.hop


class MusicEncoder(Pretrained):
    """waveform -> hidden states at sample_rate / (4 hop), as published 25 frames a second."""

    config_class = MusicEncoderConfig
    described_as = "music encoder"
    made_by = "train one with `uniaudio train starter/expert`"
    window: Tensor  # (fft_size,)
    bands: Tensor  # (mel_bands, bins)

    def __init__(self, config: MusicEncoderConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.fft_size // 2 + 1
        # Triangles on the HTK mel scale, not normalised to equal area.
        with torch.device("cpu"):  # it reads its values, which torch's meta device has not
            bands = melscale_fbanks(bins, 0.0, config.sample_rate / 2, config.mel_bands, config.sample_rate)
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)
        self.register_buffer("bands", bands.T.contiguous(), persistent=False)
        self.front_end = FrontEnd(config)
        self.layers = nn.ModuleList(
            ConformerLayer(config.dim, config.heads, config.feed_forward, config.kernel) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.dim)

    @torch.no_grad()
    def mel(self, waveforms: Tensor) -> Tensor:
        """Normalised log mel spectra (B, mel_bands, 4 T) of waveforms (B, n), T = n // samples_per_frame.

        Samples beyond the last whole frame are dropped. Raises ValueError where there is no whole frame.
        """
        frames = waveforms.shape[1] // self.config.samples_per_frame
        if frames == 0:
            raise ValueError(f"{waveforms.shape[1]} samples are less than a frame of {self.config.samples_per_frame}")
        half = self.config.fft_size // 2
        waveforms = waveforms[:, : frames * self.config.samples_per_frame].float()
        # The edges are mirrored, which needs more than half a window of sound.
        waveforms = F.pad(waveforms, (0, max(0, half + 1 - waveforms.shape[1])))
        with torch.autocast(waveforms.device.type, enabled=False):
            spectrum = torch.stft(
                waveforms,
                n_fft=self.config.fft_size,
                hop_length=self.config.hop,
                window=self.window.float(),
                pad_mode="reflect",
                return_complex=True,
            )[..., : STACK * frames]  # one column more is centred on the end of the last frame
            power = self.bands.float() @ (spectrum.real.square() + spectrum.imag.square())  # (B, mel_bands, 4 T)
            decibels = 10 * torch.log10(power.clamp(min=_FLOOR))
        return (decibels - self.config.mel_mean) / self.config.mel_std

    def states(self, mel: Tensor, deepest: int | None = None) -> list[Tensor]:
        """Hidden states of spectra.

        Args:
            mel: (B, mel_bands, 4 T), all clips of the same length: there is no mask.
            deepest: Number of the last state that is needed; later layers do not run. None: all states.

        Returns:
            states[k] (B, T, dim) is the input of layer k; the last one, of number `layers`, is the output of the last
            layer after the final norm.
        """
        deepest = self.config.layers if deepest is None else deepest
        x = self.front_end(mel)
        head_dim = self.config.dim // self.config.heads
        rotation = rotary_positions(x.shape[1], head_dim, self.config.rotary_base, x.device)
        states = [x]
        for layer in self.layers[:deepest]:
            states.append(layer(states[-1], rotation))
        if deepest == self.config.layers:
            states[-1] = self.norm(states[-1])
        return states

    def forward(self, waveforms: Tensor, deepest: int | None = None) -> list[Tensor]:
        """`states` of waveforms (B, n) at the sample rate, all of the same length."""
        return self.states(self.mel(waveforms), deepest)


class FrontEnd(nn.Module):
    """Two residual convolutions over time and frequency, each halving both, and a linear layer to the encoder's width.

    (B, mel_bands, 4 T) -> (B, T, dim)
    """

    def __init__(self, config: MusicEncoderConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualConvolution(c, config.channels) for c in (1, config.channels))
        bands = -(-config.mel_bands // STACK)  # of halving twice, rounded up each time
        self.linear = nn.Linear(config.channels * bands, config.dim)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel[:, None]  # (B, 1, bands, 4 T)
        for block in self.blocks:
            x = block(x)
        return self.linear(x.permute(0, 3, 1, 2).flatten(2))  # channel-major, band-minor


class ResidualConvolution(nn.Module):
    """(B, channels in, bands, T) -> (B, channels, bands / 2, T / 2)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels_in, channels, kernel_size=3, stride=2, padding=1)
        self.norm_in = nn.BatchNorm2d(channels)
        self.conv_out = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.norm_out = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, kernel_size=3, stride=2, padding=1)
        self.shortcut_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm_out(self.conv_out(F.relu(self.norm_in(self.conv_in(x)))))
        return F.relu(inner + self.shortcut_norm(self.shortcut(x)))
