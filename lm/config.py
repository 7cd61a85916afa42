"""Configuration of the language model: two transformers (cross-modal, depth) and two layer counts describe all four."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from lm.vocabulary import VocabularyLayout

# Rotary scaling of Llama 3.2, which the published model uses in all four transformers (published model, §A.2).
LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@strict
class UniAudioConfig(PreTrainedConfig):
    """Configuration of `lm.model.UniAudioForConditionalGeneration` (UniAudio 2.0 §4.2)."""

    model_type = "uniaudio"
    sub_configs_defaults = {
        "cross_modal": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
        "depth": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    if TYPE_CHECKING:  # given as dicts too, and configurations from then on
        cross_modal: PreTrainedConfig
        depth: PreTrainedConfig
    else:
        # of the cross-modal layers, a text model of the transformers library; its `vocab_size` is the number of text
        # ids, and the understanding and generation layers share its shape
        cross_modal: dict | PreTrainedConfig | None = None
        # of the depth decoder, a Llama model
        depth: dict | PreTrainedConfig | None = None
    # expert layers before the cross-modal ones
    understanding_layers: int = 3
    # expert layers behind them
    generation_layers: int = 2
    # a `VocabularyLayout` as plain values, which sets the number of audio ids
    vocabulary: dict[str, Any] | None = None
    # standard deviation of new weights
    initializer_range: float = 0.02
    # whether text ids are read off by their embeddings
    tie_word_embeddings: bool = False
    # what it was trained on, as in mixtures; None: not recorded
    tasks: list[str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.pop("mask_other_modalities", False):  # a variant that this project had, and no released model
            raise ValueError("mask_other_modalities is not supported any more; the model cannot be run")
        super().__post_init__(**kwargs)
        self.cross_modal.tie_word_embeddings = self.depth.tie_word_embeddings = False  # decided up here

    @property
    def layout(self) -> VocabularyLayout:
        """The vocabulary layout as a value. Raises ValueError where the configuration holds none."""
        if self.vocabulary is None:
            raise ValueError("the model configuration holds no vocabulary layout: pass vocabulary=layout.to_dict()")
        return VocabularyLayout.from_dict(self.vocabulary)

    def group(self, layers: int) -> PreTrainedConfig:
        """Configuration of a group of `layers` layers in the shape of the cross-modal ones."""
        config = copy.deepcopy(self.cross_modal)
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):  # one entry per layer in some families (Qwen3)
            config.layer_types = config.layer_types[:layers]
        return config


AutoConfig.register("uniaudio", UniAudioConfig)
