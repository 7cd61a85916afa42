"""Configuration of ALMTokenizer: frozen dataclasses that are stored as JSON beside the weights.

Published are the codes (3 codebooks of 2,048 at 12.5 Hz), the range of windows and 24 transformer layers; the other
defaults are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from codec.io.errors import UserError
from codec.io.numbers import Layers, NonNegative, Range, Share, Width
from codec.layers.config import QuantiserConfig, check_ratios
from codec.tokens import SAMPLE_RATE

Stride = Annotated[int, Range(2, 1024)]  # of a stage of convolutions
Patches = Annotated[int, Range(1, 2**15)]  # a time, in patches
Window = Annotated[int, Range(1, 256)]  # patches that a query stands for


@dataclass(frozen=True)
class PatchesConfig:
    """How sound becomes patches, and patches sound."""

    # "waveform": convolutions on the samples; "stft": on log magnitudes, and magnitudes and phases on the way back,
    # which learns in minutes on a CPU
    front_end: Literal["waveform", "stft"] = "waveform"
    # strides on the way in, whose product is the samples of a patch: 320 make 75 patches a second
    downsampling_ratios: tuple[Stride, ...] = (2, 4, 5, 8)
    # strides on the way back, with the same product; unused by "stft"
    upsampling_ratios: tuple[Stride, ...] = (8, 5, 4, 2)
    # channels of the first stage on the way in; each stage doubles them. Unused by "stft"
    encoder_channels: Width = 32
    # channels of the first stage on the way back; each stage halves them. Unused by "stft"
    decoder_channels: Width = 1024
    # samples of a spectrum's window; unused by "waveform"
    fft_size: Annotated[int, Range(8, 2**14)] = 640
    # spectra of a patch, 1 or even; unused by "waveform"
    spectra: Annotated[int, Range(1, 64)] = 2
    # residual convolutions before magnitudes and phases are read off; unused by "waveform"
    convolutions: Annotated[int, Range(0, 64)] = 4

    def __post_init__(self) -> None:
        for name in ("downsampling_ratios", "upsampling_ratios"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        down, up = self.downsampling_ratios, self.upsampling_ratios
        check_ratios(down, up, 2**14)
        if self.front_end == "waveform" and self.decoder_channels < 2 ** len(up):
            raise UserError(f"decoder_channels {self.decoder_channels} cannot halve {len(up)} times")
        if self.front_end == "stft":
            step = self.samples // self.spectra
            if self.spectra > 1 and self.spectra % 2 or self.samples % (2 * self.spectra):
                raise UserError(f"a patch of {self.samples} samples cannot have {self.spectra} spectra; choose 1 or 2")
            if self.fft_size % step or self.fft_size < 4 * step:
                raise UserError(f"fft_size {self.fft_size} must be a multiple, four times or more, of {step}")

    @property
    def samples(self) -> int:
        """Samples of a patch."""
        return math.prod(self.downsampling_ratios)

    @property
    def rate(self) -> float:
        """Patches per second."""
        return SAMPLE_RATE / self.samples


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of transformer layers that look so far and no further."""

    # transformer layers
    layers: Layers = 12
    # attention heads
    heads: Width = 12
    # width of the feed-forward layers
    feed_forward: Width = 2048
    # patches that a layer looks back
    look_back: Patches = 25
    # patches that a layer looks ahead; 0: causal
    look_ahead: Annotated[int, Range(0, 2**15)] = 25


@dataclass(frozen=True)
class ALMTokenizerConfig:
    """All parts of an ALMTokenizer."""

    # sound <-> patches
    patches: PatchesConfig = field(default_factory=PatchesConfig)
    # channels of patches and queries
    dim: Width = 768
    # reads the patches, and the queries between them
    encoder: TransformerConfig = field(default_factory=TransformerConfig)
    # fills in the patches between the quantised queries; looks ahead less, for streams
    decoder: TransformerConfig = field(default_factory=lambda: TransformerConfig(look_back=50, look_ahead=6))
    # "query": learned queries gather their window; "mean_pool": its patches are averaged, an ablation
    downsampling: Literal["query", "mean_pool"] = "query"
    # patches for a query: 6 of 75 a second make 12.5 frames a second
    window: Window = 6
    # the shortest window that training drew
    least_window: Window = 2
    # the longest
    most_window: Window = 10
    # codebooks
    codebooks: Layers = 3
    # codes of each codebook
    codes: Width = 2048
    # channels in which codes are compared
    codebook_dim: Width = 64
    # of the moving averages that the codes follow, per training batch
    decay: Share = 0.99
    # vectors per batch (a decaying average): a code that fewer choose is replaced by a vector of the batch
    dead_code_threshold: NonNegative = 0.1
    # codes are set by the trainer, or by the first training batch; else they are random
    kmeans_init: bool = True
    # most patches that are encoded or decoded at once, besides those that they depend on
    pass_patches: Annotated[int, Range(1, 2**17)] = 1200
    # most patches of one pass on an accelerator, over all its clips; not part of the fingerprint
    batch_patches: Annotated[int, Range(1, 2**22)] = 36_000

    def __post_init__(self) -> None:
        if not self.least_window <= self.window <= self.most_window:
            raise UserError(
                f"a window of {self.window} patches is none that this tokenizer was trained for; choose "
                f"{self.least_window} to {self.most_window}"
            )
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if self.dim % (2 * part.heads):
                raise UserError(f"dim {self.dim} must be an even multiple of {name}.heads, {part.heads}")
            if part.look_back < self.most_window or (name == "encoder" and part.look_ahead < self.most_window):
                raise UserError(f"the {name} must look over a whole window: {self.most_window} patches or more")

    @property
    def samples_per_frame(self) -> int:
        """Samples that a query stands for."""
        return self.patches.samples * self.window

    @property
    def quantiser(self) -> QuantiserConfig:
        """Of the residual quantiser."""
        return QuantiserConfig(
            codebook_size=self.codes,
            codebook_dim=self.codebook_dim,
            decay=self.decay,
            dead_code_threshold=self.dead_code_threshold,
            rotation_trick=False,
            kmeans_init=self.kmeans_init,
        )
