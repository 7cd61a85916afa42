"""Features of a batch from the frozen parts of the codec: experts, descriptive frames and scalar latents."""

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
    """What the frozen parts extract from a batch of B clips."""

    # name -> (B, C, T) expert features, as StructuralBranch takes them
    experts: dict[str, Tensor]
    # (B, T12) bool: the clips' structural frames
    structural_mask: Tensor
    # (B, T5, dim) quantised descriptive frames; None where that branch is not frozen
    descriptive: Tensor | None
    # (B, T25, latent_dim) scalar latents before rounding
    latents: Tensor
    # (B,) latent frames of each clip
    latent_frames: Tensor
    # (B,) 25 Hz frames of each clip, as ReasoningCodec.encode_descriptive takes them
    feature_frames: Tensor | None = None


class FeatureExtractor:
    """Runs the frozen parts, always in eval mode and without gradients.

    Args:
        codec: whose parts they are.
        cache: whether features are kept in memory, in 16 bits, so that later epochs cost nothing: for corpora of a few
            hours. Clips are then encoded one by one, so that a run that is resumed computes the very same numbers.
        descriptive: whether the descriptive branch is one of the frozen parts.
    """

    def __init__(self, codec: ReasoningCodec, cache: bool = False, descriptive: bool = True) -> None:
        self.codec, self.descriptive = codec, descriptive
        self._cache: dict[tuple[str, int, int, int], dict[str, Tensor]] | None = {} if cache else None

    def __call__(self, crops: Sequence[Crop], device: torch.device) -> FrozenFeatures:
        if self._cache is None:
            features = self._extract(*(value.to(device) for value in load_batch(crops)))
        else:
            features = self._collate([self._cached(crop, device) for crop in crops], device)
        features.feature_frames = torch.tensor([feature_frames(crop.length, 25) for crop in crops], device=device)
        return features

    @torch.no_grad()
    def _extract(self, waveforms: Tensor, lengths: Tensor) -> FrozenFeatures:
        features = self.codec.extract_features(waveforms, lengths)
        descriptive = self.codec.encode_descriptive(features)[0] if self.descriptive else None
        latents = self.codec.scalar.encode(waveforms, lengths).transpose(1, 2)
        frames = -(-lengths // self.codec.config.scalar.samples_per_frame)
        return FrozenFeatures(features.values, features.structural_mask, descriptive, latents, frames)

    def _cached(self, crop: Crop, device: torch.device) -> dict[str, Tensor]:
        key = (crop.clip.id, crop.start, crop.length, crop.rate)
        if key not in self._cache:
            features = self._extract(*(value.to(device) for value in load_batch([crop])))
            parts = {name: value[0].T for name, value in features.experts.items()}  # (T, C)
            parts |= {"mask": features.structural_mask[0], "latents": features.latents[0]}
            if features.descriptive is not None:
                parts["descriptive"] = features.descriptive[0]
            # A copy of the 16-bit values alone, else a whole batch would stay in memory behind its slices.
            self._cache[key] = {
                name: (value if name == "mask" else value.half()).cpu().clone() for name, value in parts.items()
            }
        return self._cache[key]

    def _collate(self, clips: list[dict[str, Tensor]], device: torch.device) -> FrozenFeatures:
        def padded(name: str) -> Tensor:
            rows = pad_sequence([clip[name] for clip in clips], batch_first=True)
            return (rows if name == "mask" else rows.float()).to(device)

        names = clips[0].keys() - {"mask", "latents", "descriptive"}
        return FrozenFeatures(
            {name: padded(name).transpose(1, 2) for name in sorted(names)},
            padded("mask"),
            padded("descriptive") if self.descriptive else None,
            padded("latents"),
            torch.tensor([len(clip["latents"]) for clip in clips], device=device),
        )
