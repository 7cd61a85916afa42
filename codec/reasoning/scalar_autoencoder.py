"""The scalar autoencoder: waveform <-> 25 Hz x 136 values in [-1, 1], the target of the flow decoder.

ReasoningCodec's SQCodec ("UniAudio 2.0" §3, published as `ScalarModel`). Two front ends share one network:

`waveform`  the published structure: convolutions on the samples themselves, causal but for `delay_kernel_size`.
`stft`      the same convolutions on log-magnitude frames; the phase is found by `LogMagnitudeSpectrogram`. It learns in
            minutes on a CPU, and its latents hold no phase, which makes them a far easier target for a small flow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.io.errors import UserError
from codec.io.numbers import Range, Samples, Width
from codec.io.strict import parse
from codec.io.tensor_files import save_tensors
from codec.layers.masks import length_mask
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, load_module, read_config, saved_folder
from codec.reasoning.scalar_layers import (
    DILATIONS,
    Conv,
    DecoderStage,
    EncoderStage,
    PrincipalComponents,
    SampleFilter,
    keep,
)
from codec.reasoning.spectrogram import LogMagnitudeSpectrogram, phase_reach

_MADE_BY = "train one with `uniaudio train starter/scalar`"
LEVELS = 9  # a latent is rounded to a multiple of 1/9: 19 levels


@dataclass(frozen=True)
class ScalarConfig:
    """Shape of a scalar autoencoder. The first group has the published names.

    num_bands: channels of the signal handed to the first convolution: 1 for a waveform, fft_size / 2 + 1 for `stft`
    sample_rate: samples per second
    causal: whether convolutions look at the past only
    num_samples: extra averaging (and repeating) of so many samples at the waveform end; 1 for none
    downsample_factors, upsample_factors: strides of the encoder and decoder stages
    downsample_kernel_sizes, upsample_kernel_sizes: their kernels
    latent_hidden_dim: channels of the latents
    default_kernel_size: of the first and last convolutions
    delay_kernel_size: of the decoder's first convolution, which always looks ahead
    init_channel: channels of the first stage; each stage doubles them
    res_kernel_size: of the residual units

    front_end: "waveform" or "stft"
    fft_size, hop: window and step of `stft`, in samples
    phase_iterations: of Griffin-Lim in `stft`
    principal_components: a fixed linear code beside the network, which learns what that misses (`stft` only)
    """

    num_bands: Width = 1
    sample_rate: Annotated[int, Range(1, 768_000)] = 24_000
    causal: bool = True
    num_samples: Samples = 2
    downsample_factors: tuple[Samples, ...] = (2, 3, 4, 4, 5)
    downsample_kernel_sizes: tuple[Samples, ...] = (4, 6, 8, 8, 10)
    upsample_factors: tuple[Samples, ...] = (5, 4, 4, 3, 2)
    upsample_kernel_sizes: tuple[Samples, ...] = (10, 8, 8, 6, 4)
    latent_hidden_dim: Width = 136
    default_kernel_size: Samples = 7
    delay_kernel_size: Samples = 5
    init_channel: Width = 48
    res_kernel_size: Samples = 7
    front_end: Literal["waveform", "stft"] = "waveform"
    fft_size: Samples = 960
    hop: Samples = 240
    phase_iterations: Annotated[int, Range(0, 1000)] = 32
    principal_components: bool = False

    def __post_init__(self) -> None:
        for name in ("downsample_factors", "downsample_kernel_sizes", "upsample_factors", "upsample_kernel_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # plain values may be lists
        if len(self.downsample_factors) > 16 or len(self.upsample_factors) > 16:
            raise UserError("more than 16 stages double the channels beyond any size")
        if self.front_end not in ("waveform", "stft"):
            raise UserError(f"front_end must be 'waveform' or 'stft', not {self.front_end!r}")
        expected = self.fft_size // 2 + 1 if self.front_end == "stft" else 1
        if self.num_bands != expected:
            raise UserError(f"num_bands must be {expected} with front_end {self.front_end!r}, not {self.num_bands}")
        size, hop = self.fft_size, self.hop
        if self.front_end == "stft" and (size % hop or size < 4 * hop or size % 2 or hop % 2):
            raise UserError(f"fft_size {size} must be a multiple, four times or more, of hop {hop}, both even")
        if self.principal_components and self.front_end != "stft":
            raise UserError(
                "principal_components needs front_end 'stft': the samples of a waveform have no linear summary"
            )
        if len(self.downsample_factors) != len(self.downsample_kernel_sizes):
            raise UserError("downsample_factors and downsample_kernel_sizes differ in length")
        if len(self.upsample_factors) != len(self.upsample_kernel_sizes):
            raise UserError("upsample_factors and upsample_kernel_sizes differ in length")
        for factor, size in zip(self.upsample_factors, self.upsample_kernel_sizes, strict=True):
            if size < factor:
                raise UserError(f"upsample_kernel_sizes: kernel {size} is shorter than its factor {factor}")
        if math.prod(self.downsample_factors) != math.prod(self.upsample_factors):
            raise UserError("downsample_factors and upsample_factors have different products")

    @property
    def samples_per_frame(self) -> int:
        """Samples of one latent frame: 960 at 24 kHz and 25 Hz."""
        step = self.hop if self.front_end == "stft" else self.num_samples
        return step * math.prod(self.downsample_factors)

    def latent_frames(self, num_samples: int) -> int:
        """Latent frames of a clip of `num_samples` samples: ceil(num_samples / samples_per_frame)."""
        return -(-num_samples // self.samples_per_frame)

    @property
    def decoder_reach(self) -> tuple[int, int]:
        """Latent frames before and after a stretch of latents on which the sound of that stretch depends.

        Exact for the convolutions; for a phase search see `spectrogram.PHASE_REACH`.
        """
        if self.front_end == "stft":
            before, after = phase_reach(self.fft_size, self.hop, self.phase_iterations)  # samples
            step = self.hop
        else:
            before, after, step = 0, 0, 1

        def convolution(kernel: int, dilation: int = 1, causal: bool = self.causal) -> None:
            nonlocal before, after
            reach = dilation * (kernel - 1)
            left = reach if causal else reach // 2
            before, after = before + left * step, after + (reach - left) * step

        convolution(self.default_kernel_size)
        if self.num_samples > 1:
            convolution(self.default_kernel_size)
            before += (self.num_samples - 1) * step  # each value is repeated
            step *= self.num_samples
        stages = zip(self.upsample_factors, self.upsample_kernel_sizes, strict=True)
        for factor, kernel in reversed(list(stages)):
            for dilation in DILATIONS:
                convolution(self.res_kernel_size, dilation)
            cut = 0 if self.causal else (kernel - factor) // 2
            before, after, step = before + (kernel - 1 - cut) * step, after + cut * step, step * factor
        convolution(self.delay_kernel_size, causal=False)
        return -(-before // self.samples_per_frame), -(-after // self.samples_per_frame)


class ScalarAutoencoder(nn.Module):
    """Waveform <-> latents (B, 136, T25), T25 = ceil(n / 960).

    Latents are tanh values; `decode` rounds them to 19 levels. A clip in a batch gives the same latents and the same
    samples as alone. Published keys (`encoder.0.weight_g`, ...) load directly.
    """

    def __init__(self, config: ScalarConfig):
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
                nn.init.constant_(correction.parametrizations.weight.original0, 0.05)  # the network starts small
        self.register_load_state_dict_pre_hook(_merge_published_activations)

    def signal(self, waveforms: Tensor) -> Tensor:
        """(B, T25 960) -> (B, num_bands, steps): what the network codes, the waveform itself or its log magnitudes."""
        return waveforms[:, None] if self.spectrogram is None else self.spectrogram.analyse(waveforms)

    def pad(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(B, n) -> (B, T25 960): zeros beyond each clip's end, up to a whole number of latent frames."""
        waveforms = keep(waveforms[:, None], lengths)[:, 0]
        return F.pad(waveforms, (0, -waveforms.shape[-1] % self.config.samples_per_frame))

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """The training pass: latents before tanh (B, 136, T25), and the signal (B, num_bands, steps) decoded from them.

        noise: deviation of what is added to the latents before they are rounded. A decoder that has seen it forgives a
            flow its small errors.
        """
        frames = self._latent_frames(lengths)
        raw = self._encode(self.signal(self.pad(waveforms, lengths)), frames)
        latents = torch.tanh(raw)
        heard = latents + noise * torch.randn_like(latents) if noise else latents
        return raw, self.decode_signal(self.quantise(heard), frames)

    def encode(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Latents before rounding.

        waveforms: (B, n) float32 at 24 kHz; lengths: (B,) samples of each clip
        returns (B, 136, T25), zero beyond the ceil(length / 960) frames of a clip
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
        for stage in stages:
            x = self.down_activation(stage(x, steps))
            steps = None if steps is None else steps // stage.factor
        raw = last(x, steps)
        return keep(raw if self.principal is None else raw + self.principal.down(signal), frames)

    @staticmethod
    def quantise(latents: Tensor) -> Tensor:
        """Round to 19 levels, multiples of 1/9; the gradient passes straight through."""
        return latents + ((latents * LEVELS).round() / LEVELS - latents).detach()

    def decode(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Waveforms of latents, which are rounded first.

        latents: (B, 136, T25); lengths: (B,) samples of each clip, at most T25 * 960
        returns (B, T25 * 960), zero beyond each clip's length; without lengths, all of it is sound
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
        for stage in stages:
            x = stage(x, frames)
            frames = _times(frames, stage.factor)
        if repeat > 1:
            frames = _times(frames, repeat)
            x = expanding(x.repeat_interleave(repeat, dim=-1), frames)
        signal = last(x, frames)
        return signal if self.principal is None else signal + self.principal.up(latents)

    @torch.no_grad()
    def fit_principal_components(self, clips: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the principal components to those of (waveforms (B, n), lengths (B,)) batches.

        The network then starts from the best linear code, and needs a tenth of the steps to the same error.
        Raises ValueError where the config has none.
        """
        if self.principal is None:
            raise ValueError("this autoencoder's config has no principal components to fit")
        vectors = []
        for waveforms, lengths in clips:
            signal = self.signal(self.pad(waveforms, lengths))  # (B, num_bands, T25 factor)
            pieces = signal.unflatten(-1, (-1, self.principal.factor)).movedim(2, 1)  # (B, T25, num_bands, factor)
            vectors.append(pieces[length_mask(self._latent_frames(lengths), pieces.shape[1])])
        self.principal.fit(torch.cat(vectors))

    def _latent_frames(self, lengths: Tensor | None) -> Tensor | None:
        return None if lengths is None else -(-lengths // self.config.samples_per_frame)

    def save_pretrained(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write config.json and model.safetensors. state: to write instead of this module's own."""
        with saved_folder(folder) as scratch:
            save_tensors(self.state_dict() if state is None else state, scratch / WEIGHTS_FILE)
            (scratch / CONFIG_FILE).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ScalarAutoencoder:
        """Read what `save_pretrained` wrote, in eval mode. Raises UserError where something is missing or damaged."""
        values = read_config(folder, "scalar autoencoder", _MADE_BY)
        config = parse(ScalarConfig, values, str(Path(folder) / CONFIG_FILE))
        return load_module(lambda: cls(config), folder, f"copy it again, or {_MADE_BY}")


def _times(frames: Tensor | None, factor: int) -> Tensor | None:
    return None if frames is None else frames * factor


def _merge_published_activations(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """The published state names the shared activation once per stage; here it has one name."""
    suffix = ".down_conv.activation.weight"
    aliases = [key for key in state if key.startswith(f"{prefix}encoder.") and key.endswith(suffix)]
    values = [state.pop(key) for key in aliases]
    if any(not torch.equal(value, values[0]) for value in values):
        raise ValueError(f"{', '.join(aliases)}: published weights share this value, but these differ")
    if values:
        state[f"{prefix}down_activation.weight"] = values[0]
