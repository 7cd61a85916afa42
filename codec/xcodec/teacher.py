"""The teacher of X-Codec: a frozen model whose features are the semantic branch's input, and its target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import resample

from codec.experts.base import load_expert
from codec.experts.config import RATES, ExpertConfig
from codec.experts.transformers_model import load_model
from codec.io.errors import UserError
from codec.io.strict import parse
from codec.layers.fast_linear import FastLinear
from codec.tokens import SAMPLE_RATE
from codec.xcodec.config import SpeechModelConfig, TeacherConfig

# What a transformers model is told besides its sizes: nothing is random, nothing masked, no weight stands for a mask.
_PLAIN: dict[str, Any] = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
MASK = "masked_spec_embed"  # that weight
_OWN = {  # sizes that one type of model has alone
    "hubert": ("feat_proj_layer_norm", "conv_pos_batch_norm"),
    "wavlm": ("num_buckets", "max_bucket_distance"),
}


class Teacher(nn.Module, ABC):
    """Frozen, and in eval mode whatever the mode of the codec.

    Attributes:
        config: What it is made from again, given its weights.
        dim: Channels of its features.
    """

    config: TeacherConfig
    dim: int

    @torch.no_grad()
    def features(self, waveforms: Tensor) -> Tensor:
        """Waveforms (B, hop T) at the codec's rate -> (B, dim, T times the semantic strides)."""
        return self._features(waveforms)

    @abstractmethod
    def _features(self, waveforms: Tensor) -> Tensor: ...

    @abstractmethod
    def frames(self, num_samples: int) -> int:
        """Frames of features that so many samples have."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class SpeechTeacher(Teacher):
    """A transformers HuBERT or WavLM that reads the waveform itself: the mean of all its hidden states.

    Half a frame of silence on either side centres each of its windows on a frame of the codec, as published.
    """

    def __init__(self, sizes: SpeechModelConfig, hop: int) -> None:
        super().__init__()
        from transformers import AutoModel

        self.config = TeacherConfig(model=sizes)
        self.sizes, self.dim, self.edge = sizes, sizes.hidden_size, hop // 2
        self.model = AutoModel.from_config(library_config(sizes)).float()
        for part in self.model.modules():
            if type(part) is nn.Linear:
                part.__class__ = FastLinear  # which has the same parameters
        self.requires_grad_(False)
        self.eval()

    def _features(self, waveforms: Tensor) -> Tensor:
        states = self.model(F.pad(waveforms, (self.edge, self.edge)), output_hidden_states=True).hidden_states
        return torch.stack(states, dim=1).mean(dim=1).transpose(1, 2)

    def frames(self, num_samples: int) -> int:
        return self.sizes.frames(num_samples + 2 * self.edge)


class ExpertTeacher(Teacher):
    """An expert encoder of `codec.experts`, brought to the rate of the semantic branch."""

    def __init__(self, config: ExpertConfig, sample_rate: int, rate: float) -> None:
        super().__init__()
        self.expert = load_expert(config)
        self.config = TeacherConfig(expert=self.expert.config)
        self.feature, self.dim = list(self.expert.dims.items())[-1]
        own = RATES[config.role]
        self.pool, self.repeat = max(1, round(own / rate)), max(1, round(rate / own))
        if own * self.repeat != rate * self.pool:
            raise UserError(
                f"teacher: the {config.role} expert has {own} frames per second, and the semantic branch {rate:g}; "
                "one must be a multiple of the other"
            )
        self.sample_rate, self.samples = sample_rate, sample_rate / rate

    def _features(self, waveforms: Tensor) -> Tensor:
        features = self.expert.features(resample(waveforms, self.sample_rate, SAMPLE_RATE))[self.feature]
        frames = self.frames(waveforms.shape[1])
        if self.pool > 1:
            features = F.avg_pool1d(features[..., : frames * self.pool], self.pool)
        return features.repeat_interleave(self.repeat, dim=-1)[..., :frames]

    def frames(self, num_samples: int) -> int:
        return round(num_samples / self.samples)


def make_teacher(config: TeacherConfig, sample_rate: int, hop: int, stride: int) -> Teacher:
    """The teacher of a codec with frames of `hop` samples, each of `stride` frames of the semantic branch.

    Raises:
        UserError: Its model cannot be read, or its frames do not fit the codec's.
    """
    if config.expert is not None:
        return ExpertTeacher(config.expert, sample_rate, sample_rate * stride / hop)
    if config.model is not None:
        return SpeechTeacher(config.model, hop)
    from transformers import AutoModel

    read = load_model(AutoModel, ExpertConfig("phone", "self_supervised", config.source))
    settings: Any = read.config
    teacher = SpeechTeacher(speech_sizes(settings.to_dict(), config.source), hop)
    teacher.model.load_state_dict({name: t for name, t in read.state_dict().items() if name != MASK})
    return teacher


def speech_sizes(values: Mapping[str, Any], source: str) -> SpeechModelConfig:
    """Of a transformers configuration's values. Raises UserError naming `source` where one is unfit."""
    if values.get("model_type") not in _OWN:
        raise UserError(
            f"{source}: a model of type {values.get('model_type')!r} cannot be the teacher of an X-Codec; use one of "
            f"{' or '.join(_OWN)}"
        )
    foreign = _foreign(values["model_type"])
    known = {f.name: values[f.name] for f in fields(SpeechModelConfig) if f.name in values and f.name not in foreign}
    return parse(SpeechModelConfig, known, source)


def library_config(sizes: SpeechModelConfig) -> Any:
    """The transformers configuration of a teacher."""
    from transformers import AutoConfig

    foreign = _foreign(sizes.model_type)
    values: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(sizes).items()
        if name not in foreign
    }
    return AutoConfig.for_model(**values, **_PLAIN)


def _foreign(model_type: str) -> set[str]:
    """Sizes that a model of another type has alone."""
    return {name for kind, names in _OWN.items() if kind != model_type for name in names}
