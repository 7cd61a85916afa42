"""Expert encoders: the frozen feature extractors of ReasoningCodec (UniAudio 2.0 §3).

Three roles, whichever model fills them:
    "speech_text"  the content of speech, 50 Hz; published: Whisper-medium's encoder
    "phone"        pronunciation and voice, 50 Hz; published: the mean of WavLM-base's states 6 to 9
    "music"        25 Hz, two taps "music_acoustic" and "music_semantic"; published: states 4 and 11 of a music encoder

Every expert returns feature_frames(n, rate) frames for a clip of n samples and zeros beyond; the features of a clip do
not depend on its batch. Experts are never trained and always in eval mode, whatever the mode of the codec.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import ValuesView
from typing import TYPE_CHECKING, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.experts.config import KINDS, RATES, ExpertConfig
from codec.io.errors import UserError
from codec.layers.masks import length_mask
from codec.tokens import SAMPLE_RATE

Count = TypeVar("Count", int, Tensor)


def feature_frames(num_samples: Count, rate: int) -> Count:
    """Frames at `rate` Hz of a clip of `num_samples` samples at 24 kHz; the same rule as the lengths of the tokens."""
    return num_samples * rate // SAMPLE_RATE + 1


class ExpertEncoder(nn.Module, ABC):
    """A frozen feature extractor in one role.

    Attributes:
        config: What it was made from; enough to make it again, given its weights.
        rate: Frames per second.
        dims: Feature name -> channels.
    """

    dims: dict[str, int]

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.rate = RATES[config.role]

    @torch.no_grad()
    def features(
        self, waveforms: Tensor, lengths: Tensor | None = None, whole_frames: bool = False
    ) -> dict[str, Tensor]:
        """Features of a batch of clips.

        Args:
            waveforms: (B, n) float32, 24 kHz mono.
            lengths: (B,) int64, samples of each clip; None: all clips have n.
            whole_frames: Of clips that fill the batch, compute the floor(rate n / 24000) frames within the clip, with
                the rest of the clip rather than silence after the last of them, as the published code encodes its
                segments.

        Returns:
            Feature name -> (B, channels, feature_frames(n, rate)), zero beyond each clip's own frames.
        """
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        if whole_frames:
            return self._encode(waveforms, lengths, lengths * self.rate // SAMPLE_RATE)
        frames = feature_frames(lengths, self.rate)  # (B,)
        most = feature_frames(waveforms.shape[1], self.rate)
        inside = length_mask(lengths, waveforms.shape[1])
        waveforms = F.pad(waveforms * inside, (0, most * (SAMPLE_RATE // self.rate) - waveforms.shape[1]))
        features = self._encode(waveforms, lengths, frames)
        mask = length_mask(frames, most)[:, None]  # (B, 1, T)
        return {name: value * mask for name, value in features.items()}

    @abstractmethod
    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Features (B, C, T) of waveforms (B, n) that are zero beyond each clip; T: whole frames in n samples.

        Args:
            frames: (B,) of each clip; n is T * samples per frame unless whole frames of the clips alone are wanted.
        """

    def freeze(self) -> None:
        """Fix the weights and switch to eval mode."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: no dropout, no layer drop, no masking, whatever the mode of the codec."""
        return super().train(False)


class ExpertEncoders(nn.ModuleDict):
    """Role -> expert encoder; a type checker knows more of them than of the modules in a ModuleDict."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> ExpertEncoder: ...

        def values(self) -> ValuesView[ExpertEncoder]: ...


def load_expert(config: ExpertConfig) -> ExpertEncoder:
    """The expert of a configuration, frozen. Raises UserError where its model cannot be read."""
    module, name = KINDS[config.kind]
    return getattr(importlib.import_module(module), name)(config)


def average(states: tuple[Tensor, ...], layers: tuple[int, ...]) -> Tensor:
    """Mean (B, T, C) of the chosen hidden states; 0 is the input of the first layer, -1 the output of the last."""
    return torch.stack([states[layer] for layer in layers]).mean(0)


def check_layers(config: ExpertConfig, layers: int) -> None:
    """Raise UserError where a tap is no hidden state of a model with so many layers."""
    taps = [state for states in config.taps.values() for state in states]
    beyond = next((state for state in (max(taps), min(taps)) if not -layers - 1 <= state <= layers), None)
    if beyond is not None:
        raise UserError(
            f"{config.source or 'sizes'}: there is no hidden state {beyond}, the model has {layers} layers; "
            f"choose other taps for the {config.role} expert"
        )
