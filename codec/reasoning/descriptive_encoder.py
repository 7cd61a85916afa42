"""The descriptive encoder: the two experts that the descriptive branch listens through, and the branch.

This is what supervised training makes and what the later stages of the codec start from. Its folder holds config.json
(the experts, the branch's sizes) and model.safetensors (the branch alone: fixed features have no weights, and
pretrained experts are read from where they came from).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from codec.experts.base import feature_frames, load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.strict import parse
from codec.io.tensor_files import save_tensors
from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE, load_module, read_config, saved_folder
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import to_json
from codec.reasoning.descriptive_branch import DescriptiveBranch, DescriptiveConfig, DescriptiveOutput

_MADE_BY = "train one with a recipe of kind descriptive"


@dataclass(frozen=True)
class _Saved:
    """What config.json says."""

    experts: tuple[ExpertConfig, ...]
    descriptive: DescriptiveConfig


class DescriptiveEncoder(nn.Module):
    """waveform -> descriptive frames.

    experts: of the roles "speech_text" and "music", in any order
    """

    def __init__(self, experts: tuple[ExpertConfig, ...], config: DescriptiveConfig) -> None:
        super().__init__()
        roles = sorted(expert.role for expert in experts)
        if roles != ["music", "speech_text"]:
            raise UserError(f"the descriptive branch listens through a speech_text and a music expert, not {roles}")
        if any(expert.sizes is not None for expert in experts):
            raise UserError(
                "an expert of given sizes has no weights to listen with; name the source of the music expert"
            )
        self.expert_configs = experts
        self.experts = nn.ModuleDict({expert.role: load_expert(expert) for expert in experts})
        dims = (self.experts["speech_text"].dims["speech_text"], self.experts["music"].dims["music_semantic"])
        if dims != (config.speech_dim, config.music_dim):
            raise UserError(
                f"descriptive.speech_dim and music_dim are {(config.speech_dim, config.music_dim)}, but the experts "
                f"give {dims} channels; set them to these"
            )
        self.branch = DescriptiveBranch(config)

    @torch.no_grad()
    def extract_features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Speech-text (B, C, T50) and music features (B, C, T25) of waveforms (B, n); 25 Hz frames (B,) of each."""
        speech = self.experts["speech_text"].features(waveforms, lengths)["speech_text"]
        music = self.experts["music"].features(waveforms, lengths)["music_semantic"]
        return speech, music, feature_frames(lengths, 25)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> DescriptiveOutput:
        """Describe (B, n) float32 waveforms at 24 kHz of `lengths` (B,) samples."""
        return self.branch(*self.extract_features(waveforms, lengths))

    def save_pretrained(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write config.json and model.safetensors. state: of the branch, where it is not the module's own."""
        values = {
            "experts": [to_json(expert) for expert in self.expert_configs],
            "descriptive": to_json(self.branch.config),
        }
        with saved_folder(folder) as scratch:
            save_tensors(self.branch.state_dict() if state is None else state, scratch / WEIGHTS_FILE)
            (scratch / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_codec(cls, codec: ReasoningCodec) -> Self:
        """The encoder inside a whole codec: its own modules, no copies."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.experts = nn.ModuleDict({role: codec.experts[role] for role in ("speech_text", "music")})
        encoder.expert_configs = tuple(expert.config for expert in encoder.experts.values())
        encoder.branch = codec.descriptive
        return encoder

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DescriptiveEncoder:
        """The encoder in a folder, a whole codec's too, in eval mode.

        Raises UserError where a file is missing, damaged or does not fit.
        """
        folder = Path(folder)
        if ReasoningCodec.is_in(folder):
            return cls.from_codec(ReasoningCodec.from_pretrained(folder)).eval()
        values = read_config(folder, "trained descriptive branch", _MADE_BY)
        if not {"experts", "descriptive"} <= set(values):
            raise UserError(f"{folder / CONFIG_FILE}: {folder} holds no trained descriptive branch; {_MADE_BY}")
        saved = parse(_Saved, values, str(folder / CONFIG_FILE))
        return load_module(
            lambda: cls(saved.experts, saved.descriptive), folder, f"copy it again, or {_MADE_BY}", "branch"
        )
