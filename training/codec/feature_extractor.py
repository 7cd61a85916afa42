"""What the frozen parts of the codec make of a batch: expert features, descriptive frames and scalar latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codec.experts.base import feature_frames
from codec.reasoning.codec import ReasoningCodec
from training.codec.audio_crops import Crop, load_batch


@dataclass
class FrozenFeatures:
    """A batch as the frozen parts hear it.

    features: name -> (B, C, T) for StructuralBranch; structural_mask: (B, T12) bool
    descriptive: (B, T5, dim) quantised descriptive frames; None where that branch is not frozen
    latents: (B, T25, latent_dim) before rounding; latent_frames: (B,) of each clip
    feature_frames: (B,) 25 Hz frames of each clip, as ReasoningCodec.encode_descriptive wants them
    """

    features: dict[str, Tensor]
    structural_mask: Tensor
    descriptive: Tensor | None
    latents: Tensor
    latent_frames: Tensor
    feature_frames: Tensor | None = None


class FeatureExtractor:
    """Runs the frozen parts, always in eval mode and without gradients.

    keep: whether to keep what was heard in memory, in 16 bits, so that later epochs cost nothing: for corpora of a few
        hours. Clips are then heard one by one, so that a run that is resumed computes the very same numbers.
    describe: whether the descriptive branch is one of them
    """

    def __init__(self, codec: ReasoningCodec, keep: bool, describe: bool = True) -> None:
        self.codec, self.describe = codec, describe
        self._kept: dict[tuple[str, int, int], dict[str, Tensor]] | None = {} if keep else None

    def __call__(self, crops: Sequence[Crop], device: torch.device) -> FrozenFeatures:
        if self._kept is None:
            heard = self._hear(*(value.to(device) for value in load_batch(crops)))
        else:
            heard = self._together([self._one(crop, device) for crop in crops], device)
        heard.feature_frames = torch.tensor([feature_frames(crop.length, 25) for crop in crops], device=device)
        return heard

    @torch.no_grad()
    def _hear(self, waveforms: Tensor, lengths: Tensor) -> FrozenFeatures:
        features = self.codec.extract_features(waveforms, lengths)
        descriptive = self.codec.encode_descriptive(features)[0] if self.describe else None
        latents = self.codec.scalar.encode(waveforms, lengths).transpose(1, 2)
        frames = -(-lengths // self.codec.config.scalar.samples_per_frame)
        return FrozenFeatures(features.values, features.structural_mask, descriptive, latents, frames)

    def _one(self, crop: Crop, device: torch.device) -> dict[str, Tensor]:
        key = (crop.clip.id, crop.start, crop.length)
        if key not in self._kept:
            heard = self._hear(*(value.to(device) for value in load_batch([crop])))
            parts = {name: value[0].T for name, value in heard.features.items()}  # (T, C)
            parts |= {"mask": heard.structural_mask[0], "latents": heard.latents[0]}
            if heard.descriptive is not None:
                parts["descriptive"] = heard.descriptive[0]
            # A copy of the 16-bit values alone, else a whole batch would stay in memory behind its slices.
            self._kept[key] = {
                name: (value if name == "mask" else value.half()).cpu().clone() for name, value in parts.items()
            }
        return self._kept[key]

    def _together(self, clips: list[dict[str, Tensor]], device: torch.device) -> FrozenFeatures:
        def padded(name: str) -> Tensor:
            rows = pad_sequence([clip[name] for clip in clips], batch_first=True)
            return (rows if name == "mask" else rows.float()).to(device)

        names = clips[0].keys() - {"mask", "latents", "descriptive"}
        return FrozenFeatures(
            {name: padded(name).transpose(1, 2) for name in sorted(names)},
            padded("mask"),
            padded("descriptive") if self.describe else None,
            padded("latents"),
            torch.tensor([len(clip["latents"]) for clip in clips], device=device),
        )
