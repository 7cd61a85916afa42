"""The recipe of a language-model stage; what trains and what it costs in each stage: training/stages.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from codec.errors import UserError
from training.lora import LoraRecipe
from training.recipe import Recipe
from training.stages import LEARNS, LossRecipe, Stage


@dataclass(frozen=True, kw_only=True)
class DepthRecipe:
    """Shape of the depth decoder; the defaults are the published one's."""

    layers: int = 4
    width: int = 2048
    heads: int = 32
    kv_heads: int = 8
    mlp: int = 8192

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

    listener: of a new model: listener.safetensors that supervised training of the codec's descriptive branch left
        behind; the text model then starts with what it learned to hear there (training/inheritance.py)
    store: folder of the token store, or a list of several that are read as one; made by the same audio tokenizer
    mixture: task, construction or few-shot name -> share of the sentences (auditory_sentences/mixing.py)
    texts: UTF-8 files with one text a line for text_only; without, the transcriptions and captions of the clips
    context: rows of a packed sequence; batch: packed sequences in a micro-batch
    lora: what learns through low-rank differences; None trains everything that the stage trains in full
    validation_steps: batches of the dev split, each as large as a training step's, for a validation
    validation_mixture: of the sentences of the dev split; empty: the mixture of training
    """

    stage: Stage
    store: str | tuple[str, ...]
    mixture: dict[str, float]
    loss: LossRecipe
    init: str = ""
    text_model: str = ""
    audio_tokenizer: str = ""
    listener: str = ""
    understanding_layers: int = 3
    generation_layers: int = 2
    depth: DepthRecipe = DepthRecipe()
    texts: tuple[str, ...] = ()
    context: int = 1024
    batch: int = 1
    lora: LoraRecipe | None = None
    validation_steps: int = 2
    validation_mixture: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.init) == bool(self.text_model and self.audio_tokenizer):
            raise UserError("give either init (the stage before) or both text_model and audio_tokenizer (a new model)")
        if self.listener and self.init:
            raise UserError("listener is for a new model; with init the model has its ears already")
        if self.context < 2 or self.batch < 1 or self.validation_steps < 1:
            raise UserError("context must be at least 2, batch and validation_steps at least 1")
        idle = [group for group in self.lora.groups if group not in LEARNS[self.stage]] if self.lora else []
        if idle:
            raise UserError(
                f"lora.groups: {', '.join(idle)} would not learn in stage {self.stage}, which trains "
                f"{', '.join(LEARNS[self.stage])}"
            )
        if self.lora and self.lora.freeze_rest and not self.init:
            raise UserError("lora.freeze_rest keeps the rest of a trained model: give init")
