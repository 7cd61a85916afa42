"""Questions about recordings as supervision: what stage 1, GRPO and joint fine-tuning of the codec share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jiwer
import torch

from auditory_sentences.builders.prompts import PromptBank
from codec.io.errors import UserError
from codec.io.numbers import Count, Name, Seconds, Size
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from training.codec.audio_llm import AudioLLM
from training.codec.audio_qa import AudioQAConfig, AudioQADataset, Augmentation
from training.recipe import Corpora, Recipe, Weights, check_weights

TASKS = {"asr": 6.0, "speech_caption": 1.0, "sound_caption": 1.0, "music_caption": 1.0, "audio_qa": 2.0}


@dataclass(frozen=True, kw_only=True)
class AudioQARecipe(Recipe):
    """Questions about recordings, and the text model that answers them."""

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # folder or hub id of the text model, tokenizer included
    text_model: Name
    # type of the text model's frozen weights
    text_precision: Literal["fp32", "bf16"] = "fp32"
    # a prompt bank (JSON) that phrases the questions; empty: the project's own
    prompts: str = ""
    # questions in a micro-batch
    batch: Size = 16
    # seconds; longer clips are left out
    max_seconds: Seconds = 30.0
    # whether every clip's expert features are kept in memory once they are computed, in 16 bits
    cache_features: bool = False
    # dev clips of each task at validation, at most
    held_out_limit: Count = 100

    @property
    def text_dtype(self) -> torch.dtype:
        """Of the text model's frozen weights."""
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[self.text_precision]

    def questions(self, augmentation: Augmentation) -> AudioQAConfig:
        """How the recipe's questions are batched; `augmentation` is of those for training."""
        return AudioQAConfig(
            bank=PromptBank.load(self.prompts or None),
            batch=self.batch,
            max_seconds=self.max_seconds,
            augmentation=augmentation,
            cache_features=self.cache_features,
        )


@dataclass(frozen=True, kw_only=True)
class SupervisionRecipe(AudioQARecipe):
    """Questions of several tasks, whose answers the descriptive branch is supervised by."""

    # task -> weight; a task that no clip can serve is left out
    tasks: Weights = field(default_factory=lambda: dict(TASKS))
    # random changes to the expert features in training
    augmentation: Augmentation = Augmentation()
    # tasks that are asked at validation
    held_out_tasks: tuple[Name, ...] = ("asr", "audio_qa:class", "audio_qa:instrument")

    def __post_init__(self) -> None:
        check_weights("tasks", self.tasks)


def load_descriptive_encoder(folder: Path) -> DescriptiveEncoder:
    """The trained descriptive encoder in a folder of a descriptive run, or of a codec with its audio LLM beside it.

    Raises:
        UserError: there is none, its codebooks were never used, or it could not be saved without the rest of a codec.
    """
    encoder = DescriptiveEncoder.from_pretrained(folder)
    held = [expert.role for expert in encoder.config.experts if expert.sizes is not None]
    if held:
        raise UserError(
            f"init: {folder} holds the weights of its {held[0]} expert itself, without which a descriptive branch of "
            "its own could not be loaded again; train it inside the codec, with a recipe of kind joint"
        )
    if not encoder.branch.initialised:
        raise UserError(f"init: {folder}: its codebooks hold no codes yet; train it for more than quantise_after steps")
    return encoder


def held_out_scores(
    audio_llm: AudioLLM, held_out: AudioQADataset, limit: int, quantise: bool, device: torch.device
) -> dict[str, float]:
    """Word error rate of transcripts, share of right answers of every other task.

    Args:
        audio_llm: in eval mode.
        held_out: of the dev clips.
        limit: clips of each task, at most.
        quantise: whether the text model reads quantised frames.
        device: where it computes.
    """
    scores = {}
    for task in held_out.clips_of:
        references, predictions = [], []
        for batch in held_out.questions(task, limit):
            predictions += audio_llm.answer(**batch.features(device), questions=batch.questions, quantise=quantise)
            references += [example.dialogue.answer for example in batch.examples]
        if task == "asr":
            scores["val/wer"] = jiwer.wer(references, predictions)
        else:
            right = sum(r == p for r, p in zip(references, predictions, strict=True))
            scores[f"val/{task}"] = right / len(references)
    return scores
