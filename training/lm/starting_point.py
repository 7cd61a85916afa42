"""Where a language-model stage starts: the stage before, or a text model and a codec; checked to belong together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditory_sentences.token_store import JoinedStores, TokenStore, open_stores
from codec.io.errors import UserError
from codec.tokenizer import AudioTokenizer, load_tokenizer
from lm.config import UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.text_backbone import from_text_backbone
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import VocabularyLayout
from training.engine import processes
from training.engine.checkpoint import model_or_id, resolve_model
from training.lm.audio_projector import AudioProjector
from training.lm.distillation import SemanticTargets
from training.lm.initialisation import init_from_codec
from training.lm.lora import GroupLoraRecipe, merge_lora, save_adapter
from training.lm.recipe import LanguageModelRecipe
from uniaudio.processor import AUDIO_FOLDER, TEXT_FOLDER, VOCABULARY_FILE

ADAPTER_FOLDER = "adapter"  # of a model folder


@dataclass(frozen=True)
class Data:
    """What a stage reads beside its model: all that its sentences are made of."""

    # vocabulary of the model's rows
    layout: VocabularyLayout
    # of its text
    tokenizer: TextTokenizer
    # folder or hub id of its codec
    audio_tokenizer: str | Path
    # clips as tokens
    store: TokenStore | JoinedStores
    # that codec, of a new model; None with `init`, whose layout is known without it
    codec: AudioTokenizer | None = None

    @classmethod
    def load(cls, recipe: LanguageModelRecipe) -> Data:
        """Read everything but the model.

        Raises:
            UserError: a part cannot be read, or the parts were not made for each other.
        """
        store, codec = open_stores(recipe.store), None
        audio_tokenizer: str | Path
        if recipe.init:
            folder = resolve_model(recipe.init)
            tokenizer = TextTokenizer.from_pretrained(folder / TEXT_FOLDER)
            layout, audio_tokenizer = UniAudioConfig.from_pretrained(folder).layout, folder / AUDIO_FOLDER
        else:
            tokenizer = TextTokenizer.from_pretrained(model_or_id(recipe.text_model))
            audio_tokenizer = model_or_id(recipe.audio_tokenizer)
            codec = load_tokenizer(audio_tokenizer)
            layout = VocabularyLayout.build(tokenizer, codec.streams, codec.fingerprint, codec.sample_rate)
        for what, expected, actual, where in (
            ("audio", layout.audio_fingerprint, store.fingerprint, store.name),
            ("text", layout.text_fingerprint, tokenizer.fingerprint, recipe.init or recipe.text_model),
        ):
            if actual != expected:
                raise UserError(
                    f"{where}: made with {what} tokenizer {actual}, but the model was made for {expected}; use the same"
                )
        store.require_streams(layout.specs)
        return cls(layout, tokenizer, audio_tokenizer, store, codec)

    def load_codec(self) -> AudioTokenizer:
        """The codec that made the store. Raises UserError where it cannot be read."""
        return self.codec or load_tokenizer(self.audio_tokenizer)


@dataclass
class StartingPoint:
    """Model, tokenizers and data of a stage."""

    # whose training starts or continues
    model: UniAudioForConditionalGeneration
    # of its rows
    layout: VocabularyLayout
    # of its text
    tokenizer: TextTokenizer
    # folder or hub id of the codec, copied into every model that is written
    audio_tokenizer: str | Path
    # clips as tokens
    store: TokenStore | JoinedStores

    @classmethod
    def load(cls, recipe: LanguageModelRecipe) -> StartingPoint:
        """Read everything.

        Raises:
            UserError: a part cannot be read, or the parts were not made for each other.
        """
        dtype = torch.bfloat16 if recipe.engine.precision == "bf16" else torch.float32
        data = Data.load(recipe)
        if recipe.init:
            model = UniAudioForConditionalGeneration.from_pretrained(resolve_model(recipe.init), dtype=dtype)
        else:
            model = from_text_backbone(
                model_or_id(recipe.text_model),
                data.layout,
                recipe.depth.config,
                recipe.understanding_layers,
                recipe.generation_layers,
                dtype,
            )
            init_from_codec(model, data.codec, AudioProjector.load(recipe.audio_llm) if recipe.audio_llm else None)
        if len(recipe.loss.streams) != data.layout.num_codebooks:
            raise UserError(
                f"loss.streams: has {len(recipe.loss.streams)} weights, and frames have {data.layout.num_codebooks} "
                "codebooks; give one for each"
            )
        if recipe.sampling:
            model.generation_config.sampling = recipe.sampling
        return cls(model, data.layout, data.tokenizer, data.audio_tokenizer, data.store)

    @property
    def facts(self) -> dict[str, Any]:
        """What must still hold when the run is resumed."""
        return {
            "vocabulary": self.layout.hash,
            "text_tokenizer": self.layout.text_fingerprint,
            "audio_tokenizer": self.layout.audio_fingerprint,
            "token_store": self.store.data_hash,
        }

    def semantic_targets(self, weight: float) -> SemanticTargets | None:
        """Targets of the semantic distillation; None where it has no weight."""
        if weight == 0:
            return None
        return SemanticTargets(load_tokenizer(self.audio_tokenizer), self.layout, processes.device())

    def writer(self, lora: GroupLoraRecipe | None, init: str) -> Callable[[Path, dict[str, Tensor]], None]:
        """What fills a checkpoint's model folder: everything that UniAudio.from_pretrained reads, LoRA merged.

        Where the adapters are all that was trained, they also lie in adapter/, in peft's format, for the model `init`.
        (In the folder itself, transformers would put them on the merged model.)
        """

        def write(folder: Path, state: dict[str, Tensor]) -> None:
            weights = {name.removeprefix("model."): t for name, t in state.items() if name.startswith("model.")}
            if lora is not None and lora.freeze_rest:
                save_adapter(weights, lora, init, folder / ADAPTER_FOLDER)
            if lora is not None:
                weights = merge_lora(weights, lora)
            self.model.save_pretrained(folder, state_dict=weights)
            self.layout.save(folder / VOCABULARY_FILE)
            self.tokenizer.save_pretrained(folder / TEXT_FOLDER)
            if Path(self.audio_tokenizer).is_dir():
                shutil.copytree(self.audio_tokenizer, folder / AUDIO_FOLDER)
            else:
                load_tokenizer(self.audio_tokenizer).save_pretrained(folder / AUDIO_FOLDER)

        return write
