"""Configuration of ReasoningCodec: frozen dataclasses that are stored as JSON beside the weights.

Defaults are the sizes of the published codec.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Count, Guidance, Index, Layers, NonNegative, Range, Samples, Share, Width
from codec.layers.config import QuantiserConfig
from codec.tokens import SAMPLE_RATE


@dataclass(frozen=True)
class DescriptiveConfig:
    """Descriptive branch (ReasoningCodec, reasoning branch): 8 codes at 5 Hz."""

    # channels of the speech-text features; as many as their expert gives
    speech_dim: Width = 1024
    # channels of the music features; as many as their expert gives
    music_dim: Width = 1024
    # width of the transformer
    dim: Width = 768
    # attention heads
    heads: Width = 6
    # leading dimensions of each head that rotary positions turn; even
    rope_dims: Width = 64
    # base of the rotary frequencies
    rope_base: Annotated[float, Range(1)] = 10000.0
    # transformer blocks
    blocks: Layers = 5
    # width of the feed-forward layers, in multiples of dim
    feed_forward_multiple: Width = 4
    # from 25 Hz to 5 Hz: "query", by a learned query after every five frames, as published; "mean_pool", by the mean of
    # five frames after the last block, without queries (an ablation)
    downsampling: Literal["query", "mean_pool"] = "query"
    # frames at 25 Hz per query or mean; 5 makes 5 Hz
    query_every: Samples = 5
    # start value of the scales of the residual branches
    layer_scale: NonNegative = 0.1
    # codebooks
    levels: Layers = 8
    # the codebooks
    quantiser: QuantiserConfig = field(
        default_factory=lambda: QuantiserConfig(4096, codebook_dim=64, dead_code_threshold=0.1)
    )

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.rope_dims > self.dim // self.heads or self.rope_dims % 2:
            raise ValueError(
                f"a width of {self.dim} in {self.heads} heads with {self.rope_dims} rotated dimensions is not possible:"
                " heads must divide the width, and the rotated dimensions be even and within one head"
            )
        if self.downsampling not in ("query", "mean_pool"):
            raise ValueError(f"downsampling must be 'query' or 'mean_pool', not {self.downsampling!r}")


@dataclass(frozen=True)
class DescriptiveEncoderConfig:
    """A descriptive branch with the experts that it encodes."""

    # the experts of the roles "speech_text" and "music", in any order
    experts: tuple[ExpertConfig, ...]
    # sizes of the branch
    descriptive: DescriptiveConfig


@dataclass(frozen=True)
class StructuralConfig:
    """Structural branch (ReasoningCodec, reconstruction): 1 phone + 1 structure + 6 acoustic codes at 12.5 Hz."""

    # width of the fused features and of the conditioning of the flow decoder
    dim: Width = 768
    # bound of FiLM's multiplicative term
    film_scale: NonNegative = 0.1
    # share of clips trained without FiLM, drawn for each of the three branches; 1 is an ablation without FiLM
    film_drop: Share = 0.2
    # the codebooks of each branch
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    # conditionings that a frame gives its two latent frames: 1, the same for both, as published; 2, one for each, which
    # a small decoder learns sooner
    conditions: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        if self.conditions not in (1, 2):
            raise UserError(f"conditions must be 1 or 2, not {self.conditions!r}: a frame has two latent frames")


@dataclass(frozen=True)
class FlowConfig:
    """Flow decoder: from structural codes to scalar latents."""

    # transformer layers of the estimator
    layers: Layers = 32
    # attention heads
    heads: Width = 24
    # width of a head
    head_dim: Width = 64
    # width of the feed-forward layers, in multiples of heads x head_dim
    ff_mult: Width = 4
    # most frames at 25 Hz of one call: rows of the table of positions (3000 are 2 minutes)
    max_frames: Annotated[int, Range(2, 2**16)] = 3000
    # deviation of the noise that is left at the end of the path
    sigma_min: Share = 1e-4
    # flow times in training: "uniform", or "logit_normal" with more of them in the middle
    time_sampling: Literal["uniform", "logit_normal"] = "uniform"
    # share of training clips whose flow time is 0 instead, where conditioning alone tells what to make: all that a
    # decoder of one step ever meets
    start_share: Share = 0.0
    # whether the estimator learns only what differs from the velocity that is best for Gaussian latents without any
    # conditioning; published: it does not. With it one step is a regression from the first update on
    gaussian_skip: bool = False
    # frames at 25 Hz of one decoding window; even
    window_frames: Annotated[int, Range(2, 2**16)] = 500
    # frames that a window shares with the one before, as context: no more than in training (published: 32 to 64); even
    overlap_frames: Annotated[int, Range(2, 2**16)] = 60

    def __post_init__(self) -> None:
        if self.time_sampling not in ("uniform", "logit_normal"):
            raise UserError(f"time_sampling must be 'uniform' or 'logit_normal', not {self.time_sampling!r}")
        if not 0 < self.overlap_frames < self.window_frames <= self.max_frames:
            raise UserError("a decoding window must be longer than its overlap and no longer than max_frames")
        if self.window_frames % 2 or self.overlap_frames % 2:
            raise UserError("window_frames and overlap_frames must be even: a structural frame is two latent frames")


@dataclass(frozen=True)
class ScalarConfig:
    """Scalar autoencoder; the names down to res_kernel_size are the published ones."""

    # channels of the signal handed to the first convolution: 1 for a waveform, fft_size / 2 + 1 for "stft"
    num_bands: Width = 1
    # samples per second
    sample_rate: Annotated[int, Range(1, 768_000)] = 24_000
    # whether convolutions see the past only
    causal: bool = True
    # samples that are averaged (and repeated) at the waveform end, besides the stages; 1: none
    num_samples: Samples = 2
    # strides of the encoder's stages
    downsample_factors: tuple[Samples, ...] = (2, 3, 4, 4, 5)
    # kernels of the encoder's stages
    downsample_kernel_sizes: tuple[Samples, ...] = (4, 6, 8, 8, 10)
    # strides of the decoder's stages
    upsample_factors: tuple[Samples, ...] = (5, 4, 4, 3, 2)
    # kernels of the decoder's stages
    upsample_kernel_sizes: tuple[Samples, ...] = (10, 8, 8, 6, 4)
    # channels of the latents
    latent_hidden_dim: Width = 136
    # kernel of the first and last convolutions
    default_kernel_size: Samples = 7
    # kernel of the decoder's first convolution, which looks ahead even where causal
    delay_kernel_size: Samples = 5
    # channels of the first stage; each stage doubles them
    init_channel: Width = 48
    # kernel of the residual units
    res_kernel_size: Samples = 7
    # "waveform", as published, or "stft": log magnitudes, whose phase is found afterwards
    front_end: Literal["waveform", "stft"] = "waveform"
    # window of "stft", in samples; a multiple of hop, at least four times
    fft_size: Samples = 960
    # step of "stft", in samples
    hop: Samples = 240
    # iterations of the phase search of "stft" (Griffin-Lim)
    phase_iterations: Annotated[int, Range(0, 1000)] = 32
    # a fixed linear code beside the network, which learns the residual ("stft" only)
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


@dataclass(frozen=True)
class ReasoningCodecConfig:
    """All parts of a ReasoningCodec."""

    # one expert encoder for each of the roles speech_text, phone and music
    experts: tuple[ExpertConfig, ...] = (ExpertConfig("speech_text"), ExpertConfig("phone"), ExpertConfig("music"))
    # the descriptive branch
    descriptive: DescriptiveConfig = field(default_factory=DescriptiveConfig)
    # the structural branch
    structural: StructuralConfig = field(default_factory=StructuralConfig)
    # the flow decoder
    flow: FlowConfig = field(default_factory=FlowConfig)
    # the scalar autoencoder
    scalar: ScalarConfig = field(default_factory=ScalarConfig)
    # blocks of 0.4 s of one encoding window; longer audio takes several (the published encoders take 30 s at once)
    encode_window_blocks: Count = 75
    # blocks of 0.4 s of context on either side of such a window
    encode_context_blocks: Index = 5
    # most blocks of 0.4 s of one encoding pass on an accelerator, over all its clips: the bound on memory
    batch_blocks: Count = 600
    # steps of the flow where a call names none (a distilled decoder: 2); not part of the fingerprint
    decode_steps: Annotated[int, Range(1, 1000)] = 10
    # guidance of the flow where a call names none (a distilled decoder: 1); not part of the fingerprint
    decode_guidance: Guidance = 1.5
    # whether reflow made the flow decoder what it is, which the flow loss would undo; not part of the fingerprint
    distilled: bool = False
    # encode as the published code does, in segments of 30 s without context of a clip that is repeated to fill them:
    # different ids, and half a minute of audio to encode for the shortest clip
    published_encoding: bool = False

    def __post_init__(self) -> None:
        roles = [expert.role for expert in self.experts]
        if sorted(roles) != ["music", "phone", "speech_text"]:
            raise UserError(f"a ReasoningCodec needs one expert for each of speech_text, phone and music, not {roles}")
        if not 0 < 2 * self.encode_context_blocks < self.encode_window_blocks <= self.batch_blocks:
            raise UserError("encode_window_blocks must exceed twice encode_context_blocks and fit into batch_blocks")
        if self.scalar.sample_rate != SAMPLE_RATE or self.scalar.samples_per_frame * 25 != SAMPLE_RATE:
            raise UserError(
                f"scalar: its {self.scalar.samples_per_frame} samples a frame at {self.scalar.sample_rate} Hz must be "
                f"{SAMPLE_RATE // 25} at {SAMPLE_RATE} Hz: 25 frames per second"
            )
        if self.descriptive.query_every != 5:
            raise UserError("descriptive.query_every must be 5: five frames at 25 Hz make a descriptive frame")
        if self.decode_steps < 1 or self.decode_guidance < 1:
            raise UserError("decode_steps and decode_guidance must be at least 1")
