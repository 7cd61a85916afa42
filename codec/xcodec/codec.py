"""X-Codec: waveform <-> one stream of codes that carry sound and what a teacher hears in it (Ye et al. 2024).

A clip of n samples has ceil(n / hop) frames, 50 a second as published: silence fills the last one. So a clip's ids do
not depend on how much of it is filled, and any n >= 1 works.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from codec.io.errors import UserError
from codec.io.strict import without_defaults
from codec.layers.acoustic import AcousticDecoder, AcousticEncoder
from codec.layers.config import QuantiserConfig
from codec.layers.residual_vq import residual_quantiser
from codec.one_stream import OneStreamTokenizer
from codec.streams import StreamSpec
from codec.xcodec.config import XCodecConfig
from codec.xcodec.semantic import SemanticDecoder, SemanticEncoder
from codec.xcodec.teacher import Teacher, make_teacher

STREAM = "codes"  # neither acoustic nor semantic: each code carries both


@dataclass
class XCodecOutput:
    """What training compares. The semantic fields are None without a teacher."""

    waveforms: Tensor  # (B, hop T), decoded
    ids: Tensor  # (B, T, codebooks)
    losses: Tensor  # (codebooks,) of the quantiser
    features: Tensor | None  # (B, dim, T times the strides), predicted from the codes
    target: Tensor | None  # (B, dim, T times the strides) of the teacher


class XCodec(OneStreamTokenizer):
    """Acoustic and semantic branch around one residual quantiser."""

    tokenizer_type = "xcodec"
    config_class = XCodecConfig

    def __init__(self, config: XCodecConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        dim = config.acoustic_dim
        self.acoustic_encoder = AcousticEncoder(config.encoder_channels, config.downsampling_ratios, dim)
        self.acoustic_decoder = AcousticDecoder(config.decoder_channels, config.upsampling_ratios, dim)
        self.teacher: Teacher | None = None
        if config.teacher is not None:
            self.teacher = make_teacher(config.teacher, config.sample_rate, config.hop, config.semantic.stride)
            self._require_equal_frames(self.teacher, config)
            dim += self.teacher.dim
            self.semantic_encoder = SemanticEncoder(self.teacher.dim, config.semantic)
            self.semantic_decoder = SemanticDecoder(self.teacher.dim, config.semantic)
            self.to_semantic = nn.Linear(dim, self.teacher.dim)
        # The teacher's own configuration: a saved codec needs no source for weights that it holds.
        self.config = config if self.teacher is None else replace(config, teacher=self.teacher.config)
        self.fuse = nn.Linear(dim, dim)
        self.to_acoustic = nn.Linear(dim, config.acoustic_dim)
        codebook = QuantiserConfig(
            codebook_size=config.codes,
            codebook_dim=dim,
            decay=config.decay,
            dead_code_threshold=config.dead_code_threshold,
            rotation_trick=False,
            kmeans_init=config.kmeans_init,
        )
        self.quantiser = residual_quantiser(dim, config.codebooks, codebook)

    @staticmethod
    def _require_equal_frames(teacher: Teacher, config: XCodecConfig) -> None:
        """Raise UserError where the semantic branch does not have exactly a frame for each of the acoustic one."""
        for frames in (1, 2, 3, 100):
            made = config.semantic.frames(teacher.frames(frames * config.hop))
            if made != frames:
                raise UserError(
                    f"teacher: of {frames * config.hop} samples, {frames} frames of the codec, the semantic branch "
                    f"makes {made}; its strides, the teacher's and downsampling_ratios must fit each other"
                )

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        config = self.config
        return (StreamSpec(STREAM, config.sample_rate / config.hop, config.used, config.codes, extra_frame=False),)

    @property
    def samples_per_frame(self) -> int:
        return self.config.hop

    @property
    def encode_window(self) -> tuple[int, int]:
        return self.config.encode_window_frames, self.config.encode_context_frames

    @property
    def batch_frames(self) -> int:
        return self.config.batch_frames

    @property
    def decode_reach(self) -> tuple[int, int]:
        return self.acoustic_decoder.reach, self.acoustic_decoder.reach

    def with_codebooks(self, count: int) -> Self:
        """The codec that makes and takes the first `count` codebooks: a lower bit rate, and another fingerprint.

        It shares its weights with this one. Saved, it keeps all codebooks, and loads with as many in use.
        """
        used = None if count == self.config.codebooks else count
        other = copy.copy(self)
        other.config, other._fingerprint = replace(self.config, codebooks_used=used), None
        return other

    def at_each_rate(self) -> tuple[Self, ...]:
        return tuple(self.with_codebooks(count) for count in range(1, self.config.codebooks + 1))

    def identity_values(self) -> dict[str, Any]:
        values: dict[str, Any] = without_defaults(self.config)
        values.pop("batch_frames", None)  # the ids mean the same
        return values

    def card_facts(self) -> dict[str, str]:
        spec, config = self.streams[0], self.config
        if config.teacher is None:
            teacher = "none: a codec of sound alone"
        elif config.teacher.expert is not None:
            teacher = f"expert encoder of kind {config.teacher.expert.kind}"
        else:
            sizes = config.teacher.model
            teacher = f"{sizes.model_type}, {sizes.num_hidden_layers} layers of {sizes.hidden_size}" if sizes else ""
        tokens = f"{spec.rate:g} Hz x {spec.codebooks} codebooks of {spec.codes} codes"
        return {
            "tokens": f"{tokens} ({spec.bits_per_second:.0f} bit/s)",
            "teacher": teacher,
            "sound encoded at once": f"{config.encode_window_frames / spec.rate:g} s",
        }

    def frames_of(self, waveforms: Tensor, features: Tensor | None) -> Tensor:
        """Frames (B, T, dim) to quantise, of waveforms (B, hop T) and the teacher's features of them."""
        parts = [self.acoustic_encoder(waveforms[:, None])]
        if features is not None:
            parts.append(self.semantic_encoder(features))
        return self.fuse(torch.cat(parts, dim=1).transpose(1, 2))

    def waveforms_of(self, quantised: Tensor) -> Tensor:
        """Waveforms (B, hop T) of quantised frames (B, T, dim)."""
        return self.acoustic_decoder(self.to_acoustic(quantised).transpose(1, 2))[:, 0]

    def features_of(self, quantised: Tensor) -> Tensor:
        """The teacher's features (B, dim, T times the strides) that quantised frames (B, T, dim) predict."""
        features: Tensor = self.semantic_decoder(self.to_semantic(quantised).transpose(1, 2))
        return features[..., : quantised.shape[1] * self.config.semantic.stride]

    def forward(self, waveforms: Tensor, mask: Tensor | None = None, codebooks: int | None = None) -> XCodecOutput:
        """Encode, quantise and decode with gradients.

        Args:
            waveforms: (B, hop T) float32 at `sample_rate`.
            mask: (B, T) bool; False beyond the end of a clip, where codes learn nothing. None: all True.
            codebooks: How many are used, from the first on; None: all.
        """
        target = None if self.teacher is None else self.teacher.features(waveforms)
        quantised, ids, losses = self.quantiser(self.frames_of(waveforms, target), mask, codebooks)
        features = None if target is None else self.features_of(quantised)
        return XCodecOutput(self.waveforms_of(quantised), ids, losses, features, target)

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        if any(is_parametrized(part) for part in (*self.acoustic_encoder.modules(), *self.acoustic_decoder.modules())):
            raise RuntimeError("weights that weight norm has split are not saved; call fold_weight_norm first")
        super().save_pretrained(folder, state_dict)

    def encode_ids(self, waveforms: Tensor) -> Tensor:
        features = None if self.teacher is None else self.teacher.features(waveforms)
        _, ids, _ = self.quantiser(self.frames_of(waveforms, features))
        return ids[..., : self.config.used]

    @torch.no_grad()
    def dequantise(self, stream: str, ids: Tensor) -> Tensor:
        if stream != STREAM:
            raise KeyError(stream)
        return self.quantiser.vectors(ids.to(self.device))
