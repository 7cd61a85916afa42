"""The recipe of a language-model stage; what trains and what it costs in each stage: training/lm/stages.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from codec.io.errors import UserError
from codec.io.numbers import AnyLayers, Count, Filled, Layers, Name, Range, Size, Width
from training.lm.lora import GroupLoraRecipe
from training.lm.stages import TRAINABLE, LossRecipe, Stage
from training.recipe import Recipe, Weights, check_heads, check_weights


@dataclass(frozen=True, kw_only=True)
class DepthRecipe:
    """Shape of the depth decoder; the defaults are the published one's."""

    layers: Layers = 4
    width: Width = 2048
    heads: Width = 32
    kv_heads: Width = 8
    mlp: Width = 8192

    def __post_init__(self) -> None:
        check_heads(self, "depth.")

    @property
    def config(self) -> dict[str, int]:
        """As transformers' LlamaConfig names it."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.mlp,
        }


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(Recipe):
    """One stage: where it starts, what it reads, what it pays for.

    Either `init`, the run or model folder of the stage before, or `text_model` (folder or hub id of a causal language
    model with its tokenizer) and `audio_tokenizer` (folder or hub id of a codec), from which a new model is made with
    `understanding_layers`, `generation_layers` and `depth`.

    audio_llm: of a new model: audio_llm.safetensors that supervised training of the codec's descriptive branch left
        behind; the text model then starts with what it learned to hear there (training/lm/initialisation.py)
    store: folder of the token store, or a list of several that are read as one; made by the same audio tokenizer
    mixture: task, construction or few-shot name -> share of the sentences (auditory_sentences/stream/mixing.py)
    texts: UTF-8 files with one text a line for text_only; without, the transcriptions and captions of the clips
    context: rows of a packed sequence; batch: packed sequences in a micro-batch
    lora: what learns through low-rank differences; None trains everything that the stage trains in full
    validation_steps: batches of the dev split, each as large as a training step's, for a validation
    validation_mixture: of the sentences of the dev split; empty: the mixture of training
    """

    READS = ("init", "text_model", "audio_tokenizer", "audio_llm", "texts")

    stage: Stage
    store: Name | Annotated[tuple[Name, ...], Filled()]
    mixture: Weights
    loss: LossRecipe
    init: str = ""
    text_model: str = ""
    audio_tokenizer: str = ""
    audio_llm: str = ""
    understanding_layers: AnyLayers = 3
    generation_layers: AnyLayers = 2
    depth: DepthRecipe = DepthRecipe()
    texts: tuple[Name, ...] = ()
    context: Annotated[int, Range(2, 2**20)] = 1024
    batch: Size = 1
    lora: GroupLoraRecipe | None = None
    validation_steps: Count = 2
    validation_mixture: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_weights("mixture", self.mixture)
        if self.validation_mixture:
            check_weights("validation_mixture", self.validation_mixture)
        if bool(self.init) == bool(self.text_model and self.audio_tokenizer):
            raise UserError("give either init (the stage before) or both text_model and audio_tokenizer (a new model)")
        if self.audio_llm and self.init:
            raise UserError("audio LLM is for a new model; with init the model has its ears already")
        idle = [group for group in self.lora.groups if group not in TRAINABLE[self.stage]] if self.lora else []
        if idle:
            raise UserError(
                f"lora.groups: {', '.join(idle)} would not learn in stage {self.stage}, which trains "
                f"{', '.join(TRAINABLE[self.stage])}"
            )
        if self.lora and self.lora.freeze_rest and not self.init:
            raise UserError("lora.freeze_rest keeps the rest of a trained model: give init")
