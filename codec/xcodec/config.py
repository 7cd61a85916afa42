"""Configuration of X-Codec: frozen dataclasses that are stored as JSON beside the weights.

Defaults are the sizes of the published codec: 16 kHz, one stream of 50 Hz x 8 codebooks of 1,024 codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Layers, NonNegative, Positive, Range, Samples, Share, Width
from codec.layers.config import check_ratios

Stride = Annotated[int, Range(2, 1024)]  # of a stage of the acoustic encoder or decoder
Dilation = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class SpeechModelConfig:
    """A transformers HuBERT or WavLM whose weights lie with those of the codec: all that decides what it computes.

    Names are the library's; defaults are HuBERT-base.
    """

    # "hubert" or "wavlm"
    model_type: Literal["hubert", "wavlm"] = "hubert"
    # channels of the hidden states
    hidden_size: Width = 768
    # transformer layers
    num_hidden_layers: Layers = 12
    # attention heads
    num_attention_heads: Width = 12
    # width of the feed-forward layers
    intermediate_size: Width = 3072
    # activation of the feed-forward layers
    hidden_act: str = "gelu"
    # added to the variance by layer norms
    layer_norm_eps: Positive = 1e-5
    # channels of the convolutions that read the waveform
    conv_dim: tuple[Width, ...] = (512,) * 7
    # their strides
    conv_stride: tuple[Samples, ...] = (5, 2, 2, 2, 2, 2, 2)
    # their kernels
    conv_kernel: tuple[Samples, ...] = (10, 3, 3, 3, 3, 2, 2)
    # whether they have biases
    conv_bias: bool = False
    # their norm: "group" (the first alone, over the whole clip) or "layer"
    feat_extract_norm: Literal["group", "layer"] = "group"
    # their activation
    feat_extract_activation: str = "gelu"
    # whether a layer norm precedes the projection of their output ("hubert" only)
    feat_proj_layer_norm: bool = True
    # kernel of the convolution that stands for positions
    num_conv_pos_embeddings: Width = 128
    # its groups
    num_conv_pos_embedding_groups: Width = 16
    # whether that has a batch norm rather than weight norm ("hubert" only)
    conv_pos_batch_norm: bool = False
    # whether layer norms precede attention and feed-forward layers
    do_stable_layer_norm: bool = False
    # buckets of relative positions ("wavlm" only)
    num_buckets: Width = 320
    # how far they reach, in frames ("wavlm" only)
    max_bucket_distance: Width = 800

    def __post_init__(self) -> None:
        for name in ("conv_dim", "conv_stride", "conv_kernel"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # plain values may be lists
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel) > 0:
            raise UserError("conv_dim, conv_stride and conv_kernel must name as many convolutions as each other")
        if self.hidden_size % self.num_attention_heads or self.hidden_size % self.num_conv_pos_embedding_groups:
            raise UserError(
                f"hidden_size {self.hidden_size} must divide into {self.num_attention_heads} attention heads and "
                f"{self.num_conv_pos_embedding_groups} groups of the positions' convolution"
            )

    def frames(self, num_samples: int) -> int:
        """Hidden states of so many samples; 0 where they are too few."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = (num_samples - kernel) // stride + 1 if num_samples >= kernel else 0
        return num_samples


@dataclass(frozen=True)
class TeacherConfig:
    """The frozen model whose features, averaged over its layers, are the semantic branch's input and target."""

    # folder or hub id of a transformers HuBERT or WavLM, read once: in a saved codec `model` stands in its place
    source: str = ""
    # sizes of such a model, whose weights are stored with those of the codec
    model: SpeechModelConfig | None = None
    # an expert encoder in its place, with the hidden states to average as its taps; of its features the last one named
    expert: ExpertConfig | None = None

    def __post_init__(self) -> None:
        if sum((bool(self.source), self.model is not None, self.expert is not None)) != 1:
            raise UserError("a teacher is given by one of source, model and expert")


@dataclass(frozen=True)
class SemanticConfig:
    """The two stacks of convolutions around the quantiser that read, and predict, the teacher's features."""

    # kernel of the first and last convolutions; odd
    kernel_size: Samples = 3
    # frames of the teacher for a frame of the codec, stage by stage
    strides: tuple[Samples, ...] = (1, 1)
    # channels of each stage, in multiples of the teacher's; 1 for the last
    channel_ratios: tuple[Layers, ...] = (1, 1)
    # dilations of the residual units of each stage
    block_dilations: tuple[Dilation, ...] = (1, 1)
    # kernel of the residual units; odd
    unit_kernel_size: Samples = 3

    def __post_init__(self) -> None:
        for name in ("strides", "channel_ratios", "block_dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.strides) != len(self.channel_ratios) or not self.strides:
            raise UserError("strides and channel_ratios of the semantic branch must name as many stages as each other")
        if self.channel_ratios[-1] != 1:
            raise UserError(f"the last of channel_ratios must be 1, not {self.channel_ratios[-1]}")
        if self.kernel_size % 2 == 0 or self.unit_kernel_size % 2 == 0:
            raise UserError("kernel_size and unit_kernel_size of the semantic branch must be odd")

    @property
    def stride(self) -> int:
        """Frames of the teacher for a frame of the codec."""
        return math.prod(self.strides)

    def frames(self, teacher_frames: int) -> int:
        """What the encoder makes of so many frames of the teacher."""
        for stride in self.strides:
            if stride > 1:
                teacher_frames = (teacher_frames - 2) // stride + 1  # kernel 2 stride, padding stride - 1
        return teacher_frames


@dataclass(frozen=True)
class XCodecConfig:
    """All parts of an X-Codec."""

    # samples per second
    sample_rate: Annotated[int, Range(1, 768_000)] = 16_000
    # strides of the acoustic encoder's stages; their product is the samples of a frame
    downsampling_ratios: tuple[Stride, ...] = (8, 5, 4, 2)
    # strides of the acoustic decoder's stages
    upsampling_ratios: tuple[Stride, ...] = (8, 5, 4, 2)
    # channels of the acoustic encoder's first stage; each stage doubles them
    encoder_channels: Width = 64
    # channels of the acoustic decoder's first stage; each stage halves them
    decoder_channels: Width = 1024
    # channels of the acoustic frames
    acoustic_dim: Width = 256
    # the semantic stacks; unused without a teacher
    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    # whose features the codes carry too; null: a codec of sound alone, the paper's baseline
    teacher: TeacherConfig | None = field(default_factory=lambda: TeacherConfig(model=SpeechModelConfig()))
    # codebooks
    codebooks: Layers = 8
    # codes of each codebook
    codes: Width = 1024
    # how many of the codebooks tokens have, from the first on; null: all. Fewer make a lower bit rate
    codebooks_used: Layers | None = None
    # of the moving averages that the codes follow, per training batch
    decay: Share = 0.99
    # vectors per batch (a decaying average): a code that fewer choose is replaced by a vector of the batch
    dead_code_threshold: NonNegative = 2.0
    # the first training batch sets the codes, by k-means
    kmeans_init: bool = True
    # frames of one encoding window; longer sound takes several (1500 are 30 s)
    encode_window_frames: Annotated[int, Range(8, 2**16)] = 1500
    # frames of context on either side of such a window
    encode_context_frames: Annotated[int, Range(1, 2**15)] = 100
    # most frames of one pass on an accelerator, over all its clips; not part of the fingerprint
    batch_frames: Annotated[int, Range(1, 2**20)] = 6000

    def __post_init__(self) -> None:
        for name in ("downsampling_ratios", "upsampling_ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        down, up = self.downsampling_ratios, self.upsampling_ratios
        check_ratios(down, up, 2**16)
        if self.decoder_channels < 2 ** len(up):
            raise UserError(f"decoder_channels {self.decoder_channels} cannot halve {len(up)} times")
        if not 1 <= self.used <= self.codebooks:
            raise UserError(f"{self.used} of {self.codebooks} codebooks cannot be used; choose 1 to {self.codebooks}")
        if self.encode_window_frames <= 2 * self.encode_context_frames:
            raise UserError("encode_window_frames must exceed twice encode_context_frames")

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.downsampling_ratios)

    @property
    def used(self) -> int:
        """Codebooks of a token's frame."""
        return self.codebooks if self.codebooks_used is None else self.codebooks_used

    def frames(self, num_samples: int) -> int:
        """Frames of a clip of so many samples: one for every one that is started."""
        return -(-num_samples // self.hop)
