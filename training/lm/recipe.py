"""The recipe of a language-model stage; what is trained in each stage, and with which loss: training/lm/stages.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from codec.io.errors import UserError
from codec.io.numbers import AnyLayers, Count, Filled, Layers, Name, Range, Size, Width
from lm.generation.settings import merged_settings
from training.lm.lora import GroupLoraRecipe
from training.lm.stages import TRAINABLE, LossRecipe, Stage
from training.recipe import Recipe, Weights, check_heads, check_weights


@dataclass(frozen=True, kw_only=True)
class DepthRecipe:
    """Shape of the depth decoder; the defaults are the published one's."""

    # transformer layers
    layers: Layers = 4
    # dimensions of the hidden states
    width: Width = 2048
    # attention heads
    heads: Width = 32
    # heads of keys and values, shared by groups of attention heads
    kv_heads: Width = 8
    # dimensions inside the feed-forward layers
    mlp: Width = 8192

    def __post_init__(self) -> None:
        check_heads(self, "depth.")

    @property
    def config(self) -> dict[str, int]:
        """In the names of transformers' LlamaConfig."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.mlp,
        }


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(Recipe):
    """One stage: where it starts, what it reads, what is trained and with which loss.

    A stage starts either from `init` or from a new model, which is made of `text_model` and the codec of its store.
    What a recipe asks of another codec than that is changed before the run (training/lm/another_codec.py).
    """

    READS = ("init", "text_model", "audio_tokenizer", "audio_llm", "texts")

    # 1 understanding warm-up, 2 generation warm-up, 3 audio-text pre-training, 4 mid-training on auditory sentences
    stage: Stage
    # folder of the token store, or a list of several that are read as one; made by the same audio tokenizer
    store: Name | Annotated[tuple[Name, ...], Filled()]
    # task, construction or few-shot name -> share of the sentences; left out: those about a stream that the store's
    # tokenizer lacks and another has
    mixture: Weights
    # weights of the loss
    loss: LossRecipe
    # run or model folder of the stage before; empty: a new model
    init: str = ""
    # of a new model: folder or hub id of a causal language model with its tokenizer
    text_model: str = ""
    # of a new model: folder or hub id of the codec that made the store; left out, or another: what the store names
    audio_tokenizer: str = ""
    # of a new model: audio_llm.safetensors of the codec's descriptive run, whose projection and adapters it starts with
    audio_llm: str = ""
    # of a new model: understanding layers
    understanding_layers: AnyLayers = 3
    # of a new model: generation layers
    generation_layers: AnyLayers = 2
    # of a new model: shape of the depth decoder
    depth: DepthRecipe = DepthRecipe()
    # UTF-8 files with one text a line for text_only; left out: transcripts and captions of the clips
    texts: tuple[Name, ...] = ()
    # rows of a packed sequence
    context: Annotated[int, Range(2, 2**20)] = 1024
    # packed sequences in a micro-batch
    batch: Size = 1
    # what is trained through low-rank adapters; left out: everything that the stage trains, in full
    lora: GroupLoraRecipe | None = None
    # how the model samples audio, written into its generation_config.json: name of a task, or "all" -> its settings
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)
    # batches of the dev split at a validation, each as large as a training step's
    validation_steps: Count = 2

    def __post_init__(self) -> None:
        check_weights("mixture", self.mixture)
        for task in self.sampling:
            merged_settings(self.sampling, task, f"sampling.{task}")
        if bool(self.init) == bool(self.text_model):
            raise UserError("give either init (the stage before) or text_model (a new model)")
        if self.audio_llm and self.init:
            raise UserError("audio_llm is for a new model; leave it out with init, whose model has been initialised")
        frozen = [group for group in self.lora.groups if group not in TRAINABLE[self.stage]] if self.lora else []
        if frozen:
            raise UserError(
                f"lora.groups: {', '.join(frozen)} would not be trained in stage {self.stage}, which trains "
                f"{', '.join(TRAINABLE[self.stage])}"
            )
        if self.lora and self.lora.freeze_rest and not self.init:
            raise UserError("lora.freeze_rest keeps the rest of a trained model: give init")
