"""The descriptive encoder: two experts and the descriptive branch, which encodes their features.

This is what supervised training makes and what the later stages of the codec start from. Its folder holds config.json
(the experts, the branch's sizes) and model.safetensors (the branch alone: fixed features have no weights, and
pretrained experts are read from their source).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from codec.experts.base import ExpertEncoders, feature_frames, load_expert
from codec.io.errors import UserError
from codec.pretrained import CONFIG_FILE, Pretrained
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import DescriptiveEncoderConfig
from codec.reasoning.descriptive_branch import DescriptiveBranch, DescriptiveOutput


class DescriptiveEncoder(Pretrained):
    """waveform -> descriptive frames: two expert encoders and the descriptive branch."""

    config_class = DescriptiveEncoderConfig
    described_as = "trained descriptive branch"
    made_by = "train one with a recipe of kind descriptive"
    saved_part = "branch"

    def __init__(self, config: DescriptiveEncoderConfig) -> None:
        super().__init__()
        roles = sorted(expert.role for expert in config.experts)
        if roles != ["music", "speech_text"]:
            raise UserError(f"the descriptive branch needs a speech_text and a music expert, not {roles}")
        if any(expert.sizes is not None for expert in config.experts):
            raise UserError("an expert of given sizes has no weights; name the source of the music expert")
        self.config = config
        self.experts = ExpertEncoders({expert.role: load_expert(expert) for expert in config.experts})
        dims = (self.experts["speech_text"].dims["speech_text"], self.experts["music"].dims["music_semantic"])
        configured = (config.descriptive.speech_dim, config.descriptive.music_dim)
        if dims != configured:
            raise UserError(
                f"descriptive.speech_dim and music_dim are {configured}, but the experts give {dims} channels; set "
                "them to these"
            )
        self.branch = DescriptiveBranch(config.descriptive)

    @torch.no_grad()
    def extract_features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Speech-text (B, C, T50) and music features (B, C, T25) of waveforms (B, n); 25 Hz frames (B,) of each."""
        speech = self.experts["speech_text"].features(waveforms, lengths)["speech_text"]
        music = self.experts["music"].features(waveforms, lengths)["music_semantic"]
        return speech, music, feature_frames(lengths, 25)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> DescriptiveOutput:
        """Descriptive frames of (B, n) float32 waveforms at 24 kHz of `lengths` (B,) samples."""
        return self.branch(*self.extract_features(waveforms, lengths))

    @classmethod
    def from_codec(cls, codec: ReasoningCodec) -> Self:
        """The encoder inside a whole codec: its own modules, no copies."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.experts = ExpertEncoders({role: codec.experts[role] for role in ("speech_text", "music")})
        experts = tuple(expert.config for expert in encoder.experts.values())
        encoder.config = DescriptiveEncoderConfig(experts, codec.config.descriptive)
        encoder.branch = codec.descriptive
        return encoder

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """The encoder of a folder or hub id, of a whole codec's too, in eval mode.

        Raises:
            UserError: A file is missing, damaged or does not fit.
        """
        folder = cls.folder_of(source)
        if ReasoningCodec.is_in(folder):
            return cls.from_codec(ReasoningCodec.from_pretrained(folder)).eval()
        return super().from_pretrained(folder)

    @classmethod
    def read_values(cls, folder: Path) -> dict[str, Any]:
        values = super().read_values(folder)
        if not {"experts", "descriptive"} <= set(values):
            raise UserError(f"{folder / CONFIG_FILE}: {folder} holds no {cls.described_as}; {cls.made_by}")
        return values
