"""The descriptive encoder: the two experts that the descriptive branch listens through, and the branch.

This is what supervised training makes and what the later stages of the codec start from. Its folder holds config.json
(the experts, the branch's sizes) and model.safetensors (the branch alone: fixed features have no weights, and
pretrained experts are read from where they came from).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from codec.config import from_json, to_json
from codec.descriptive import DescriptiveBranch, DescriptiveConfig, DescriptiveOutput
from codec.errors import UserError
from codec.experts import ExpertConfig, feature_frames, load_expert
from codec.reasoning_codec import ReasoningCodec
from codec.tensor_files import save_tensors

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


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
    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Speech-text (B, C, T50) and music features (B, C, T25) of waveforms (B, n); 25 Hz frames (B,) of each."""
        speech = self.experts["speech_text"].features(waveforms, lengths)["speech_text"]
        music = self.experts["music"].features(waveforms, lengths)["music_semantic"]
        return speech, music, feature_frames(lengths, 25)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> DescriptiveOutput:
        """Describe (B, n) float32 waveforms at 24 kHz of `lengths` (B,) samples."""
        return self.branch(*self.features(waveforms, lengths))

    def save_pretrained(self, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write config.json and model.safetensors. state: of the branch, where it is not the module's own."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(self.branch.state_dict() if state is None else state, folder / _WEIGHTS)
        values = {
            "experts": [to_json(expert) for expert in self.expert_configs],
            "descriptive": to_json(self.branch.config),
        }
        (folder / _CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def of_codec(cls, codec: ReasoningCodec) -> Self:
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
            return cls.of_codec(ReasoningCodec.from_pretrained(folder)).eval()
        try:
            values = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
            experts = tuple(from_json(ExpertConfig, expert, str(folder / _CONFIG)) for expert in values["experts"])
            config = from_json(DescriptiveConfig, values["descriptive"], str(folder / _CONFIG))
            state = load_file(folder / _WEIGHTS)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder}: holds no trained descriptive branch ({error}); train one with a recipe of kind descriptive"
            ) from error
        encoder = cls(experts, config)
        try:
            encoder.branch.load_state_dict(state)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: the weights do not fit config.json beside them ({detail})") from error
        return encoder.eval()
