"""The scalar autoencoder: waveform <-> 25 Hz x 136 values in [-1, 1], the target of the flow decoder.

ReasoningCodec's SQCodec ("UniAudio 2.0" §3, published as `ScalarModel`). Two front ends share one network:

`waveform`  the published structure: convolutions on the samples themselves, causal but for `delay_kernel_size`.
`stft`      the same convolutions on log-magnitude frames; the phase is found by `LogMagnitudeSpectrogram`. It trains in
            minutes on a CPU, and its latents hold no phase, which makes them a far easier target for a small flow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.layers.masks import length_mask
from codec.layers.spectrogram import LogMagnitudeSpectrogram, phase_reach
from codec.pretrained import Pretrained
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_layers import (
    DILATIONS,
    Conv,
    DecoderStage,
    EncoderStage,
    PrincipalComponents,
    SampleFilter,
    keep,
    mel_weights,
)

LEVELS = 9  # a latent is rounded to a multiple of 1/9: 19 levels


class ScalarAutoencoder(Pretrained):
    """Waveform <-> latents (B, 136, T25), T25 = ceil(n / 960).

    Latents are tanh values; `decode` rounds them to 19 levels. Latents and samples of a clip do not depend on its
    batch.
    """

    config_class = ScalarConfig
    described_as = "scalar autoencoder"
    made_by = "train one with `uniaudio train starter/scalar`"

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__()
        self.config = config
        c, causal = config, config.causal
        width, kernel = c.init_channel, c.default_kernel_size
        encoder: list[nn.Module] = [weight_norm(Conv(c.num_bands, width, kernel, causal=causal))]
        if c.num_samples > 1:
            encoder.append(SampleFilter(width, kernel, causal))
        for factor, size in zip(c.downsample_factors, c.downsample_kernel_sizes, strict=True):
            encoder.append(EncoderStage(width, factor, size, c.res_kernel_size, causal))
            width *= 2
        encoder.append(weight_norm(Conv(width, c.latent_hidden_dim, kernel, causal=causal)))
        decoder: list[nn.Module] = [weight_norm(Conv(c.latent_hidden_dim, width, c.delay_kernel_size, causal=False))]
        for factor, size in zip(c.upsample_factors, c.upsample_kernel_sizes, strict=True):
            decoder.append(DecoderStage(width, factor, size, c.res_kernel_size, causal))
            width //= 2
        if c.num_samples > 1:
            decoder.append(SampleFilter(width, kernel, causal))
        decoder.append(weight_norm(Conv(width, c.num_bands, kernel, causal=causal)))
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.down_activation = nn.PReLU()  # one parameter for all encoder stages, as published
        self.spectrogram = (
            LogMagnitudeSpectrogram(c.fft_size, c.hop, c.phase_iterations) if c.front_end == "stft" else None
        )
        self.principal = None
        if c.principal_components:
            self.principal = PrincipalComponents(c.num_bands, c.latent_hidden_dim, math.prod(c.downsample_factors))
            for correction in (self.encoder[-1], self.decoder[-1]):
                scale = correction.get_parameter("parametrizations.weight.original0")
                nn.init.constant_(scale, 0.05)  # the network starts small

    @property
    def decoder_reach(self) -> tuple[int, int]:
        """Latent frames before and after a stretch of latents on which the sound of that stretch depends.

        Exact for the convolutions; for a phase search see `spectrogram.PHASE_REACH`.
        """
        config = self.config
        if config.front_end == "stft":
            before, after = phase_reach(config.fft_size, config.hop, config.phase_iterations)  # samples
            step = config.hop
        else:
            before, after, step = 0, 0, 1

        def convolution(kernel: int, dilation: int = 1, causal: bool = config.causal) -> None:
            nonlocal before, after
            reach = dilation * (kernel - 1)
            left = reach if causal else reach // 2
            before, after = before + left * step, after + (reach - left) * step

        convolution(config.default_kernel_size)
        if config.num_samples > 1:
            convolution(config.default_kernel_size)
            before += (config.num_samples - 1) * step  # each value is repeated
            step *= config.num_samples
        stages = zip(config.upsample_factors, config.upsample_kernel_sizes, strict=True)
        for factor, kernel in reversed(list(stages)):
            for dilation in DILATIONS:
                convolution(config.res_kernel_size, dilation)
            cut = 0 if config.causal else (kernel - factor) // 2
            before, after, step = before + (kernel - 1 - cut) * step, after + cut * step, step * factor
        convolution(config.delay_kernel_size, causal=False)
        return -(-before // config.samples_per_frame), -(-after // config.samples_per_frame)

    def signal(self, waveforms: Tensor) -> Tensor:
        """(B, T25 960) -> (B, num_bands, steps): what the network codes, the waveform itself or its log magnitudes."""
        return waveforms[:, None] if self.spectrogram is None else self.spectrogram.analyse(waveforms)

    def pad(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, n) -> (B, T25 960): zeros beyond each clip's end, up to a whole number of latent frames."""
        waveforms = keep(waveforms[:, None], lengths)[:, 0]
        return F.pad(waveforms, (0, -waveforms.shape[-1] % self.config.samples_per_frame))

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """The training pass.

        Args:
            waveforms: (B, n) float32 at 24 kHz.
            lengths: (B,) samples of each clip; None: all have n.
            noise: Standard deviation of Gaussian noise that is added to the latents before they are rounded. A decoder
                trained with it tolerates the small errors of a flow.

        Returns:
            Latents before tanh (B, 136, T25), and the signal (B, num_bands, steps) decoded from them.
        """
        frames = self._latent_frames(lengths)
        raw = self._encode(self.signal(self.pad(waveforms, lengths)), frames)
        latents = torch.tanh(raw)
        noisy = latents + noise * torch.randn_like(latents) if noise else latents
        return raw, self.decode_signal(self.quantise(noisy), frames)

    def encode(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Latents before rounding.

        Args:
            waveforms: (B, n) float32 at 24 kHz.
            lengths: (B,) samples of each clip; None: all have n.

        Returns:
            (B, 136, T25), zero beyond the ceil(length / 960) frames of a clip.
        """
        return torch.tanh(self._encode(self.signal(self.pad(waveforms, lengths)), self._latent_frames(lengths)))

    def _encode(self, signal: Tensor, frames: Tensor | None) -> Tensor:
        """(B, num_bands, steps) of `signal`, (B,) latent frames of each clip -> latents before tanh (B, 136, T25)."""
        first, *stages, last = self.encoder
        steps = None if frames is None else frames * math.prod(self.config.downsample_factors)
        if self.config.num_samples > 1:
            pooling, *stages = stages
            x = pooling(first(signal, _times(steps, self.config.num_samples)), _times(steps, self.config.num_samples))
            x = F.avg_pool1d(x, self.config.num_samples)
        else:
            x = first(signal, steps)
        for stage, factor in zip(stages, self.config.downsample_factors, strict=True):
            x = self.down_activation(stage(x, steps))
            steps = None if steps is None else steps // factor
        raw = last(x, steps)
        return keep(raw if self.principal is None else raw + self.principal.down(signal), frames)

    @staticmethod
    def quantise(latents: Tensor) -> Tensor:
        """Round to 19 levels, multiples of 1/9; the gradient passes straight through."""
        return latents + ((latents * LEVELS).round() / LEVELS - latents).detach()

    def decode(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveforms of latents, which are rounded first.

        Args:
            latents: (B, 136, T25).
            lengths: (B,) samples of each clip, at most T25 * 960; None: all have T25 * 960.

        Returns:
            (B, T25 * 960), zero beyond each clip's length.
        """
        return self.waveform(self.decode_signal(self.quantise(latents), self._latent_frames(lengths)), lengths)

    def waveform(self, signal: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, num_bands, steps) -> (B, T25 960): the inverse of `signal`, zero beyond each clip's length."""
        waveforms = signal[:, 0] if self.spectrogram is None else self.spectrogram.synthesise(signal, lengths)
        return keep(waveforms[:, None], lengths)[:, 0]

    def decode_signal(self, latents: Tensor, frames: Tensor | None = None) -> Tensor:
        """Latents (B, 136, T25) as they are, without rounding -> (B, num_bands, steps) in the scale of `signal`."""
        first, *stages, last = self.decoder
        repeat = self.config.num_samples
        if repeat > 1:
            *stages, expanding = stages
        x = first(latents, frames)
        for stage, factor in zip(stages, self.config.upsample_factors, strict=True):
            x = stage(x, frames)
            frames = _times(frames, factor)
        if repeat > 1:
            frames = _times(frames, repeat)
            x = expanding(x.repeat_interleave(repeat, dim=-1), frames)
        signal = last(x, frames)
        return signal if self.principal is None else signal + self.principal.up(latents)

    @torch.no_grad()
    def fit_principal_components(self, clips: Iterable[tuple[Tensor, Tensor]], mel_weighted: bool = False) -> None:
        """Set the principal components to those of (waveforms (B, n), lengths (B,)) batches.

        The network then starts from the best linear code, and needs a tenth of the steps to the same error.

        Args:
            clips: The batches.
            mel_weighted: An error counts alike wherever it lies on the mel scale, rather than in every bin alike. Two
                thirds of the bins of a spectrum at 24 kHz lie above 4 kHz, where a quarter of the mel scale does.

        Raises:
            ValueError: The config has none.
        """
        if self.principal is None:
            raise ValueError("this autoencoder's config has no principal components to fit")
        vectors = []
        for waveforms, lengths in clips:
            signal = self.signal(self.pad(waveforms, lengths))  # (B, num_bands, T25 factor)
            pieces = signal.unflatten(-1, (-1, self.principal.factor)).movedim(2, 1)  # (B, T25, num_bands, factor)
            frames = -(-lengths // self.config.samples_per_frame)
            vectors.append(pieces[length_mask(frames, pieces.shape[1])])
        pieces = torch.cat(vectors)
        weights = mel_weights(self.config.num_bands, self.config.sample_rate) if mel_weighted else pieces.new_ones(1)
        self.principal.fit(pieces, weights.to(pieces))

    def _latent_frames(self, lengths: Tensor | None) -> Tensor | None:
        return None if lengths is None else -(-lengths // self.config.samples_per_frame)


def _times(frames: Tensor | None, factor: int) -> Tensor | None:
    return None if frames is None else frames * factor
