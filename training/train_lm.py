"""Stages 1 to 4 of the language model (UniAudio 2.0 §4.4): one loop, four recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from auditory_sentences.mixing import SentenceStream
from auditory_sentences.packing import PackedBatch, Packing
from codec.errors import UserError
from lm.losses import LossCounts, select_targets
from training import processes
from training.engine import Engine
from training.lora import LoraRecipe
from training.recipe import Recipe
from training.run import Run
from training.stages import LEARNS, Learner, LossRecipe, Stage, set_learning
from training.starting_point import DepthRecipe, StartingPoint
from training.train_text import read_lines


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe(Recipe):
    """One stage: where it starts, what it reads, what it pays for.

    Either `init`, the run or model folder of the stage before, or `text_model` (folder or hub id of a causal language
    model with its tokenizer) and `audio_tokenizer` (folder or hub id of a codec), from which a new model is made with
    `understanding_layers`, `generation_layers` and `depth`.

    listener: of a new model: listener.safetensors that supervised training of the codec's descriptive branch left
        behind; the text model then starts with what it learned to hear there (training/inheritance.py)
    store: folder of the token store, made by the same audio tokenizer
    mixture: task, construction or few-shot name -> share of the sentences (auditory_sentences/mixing.py)
    texts: UTF-8 files with one text a line for text_only; without, the transcriptions and captions of the clips
    context: rows of a packed sequence; batch: packed sequences in a micro-batch
    lora: what learns through low-rank differences; None trains everything that the stage trains in full
    validation_steps: batches of the dev split, each as large as a training step's, for a validation
    validation_mixture: of the sentences of the dev split; empty: the mixture of training
    """

    stage: Stage
    store: str
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


def run(recipe: LanguageModelRecipe, resume: bool | str | Path = False) -> Path:
    """Train one stage, and return the folder of model and tokenizers, which UniAudio.from_pretrained reads."""
    with Run(recipe, resume) as run:
        start = StartingPoint.load(recipe)
        packing = _packing(recipe, start, "train")
        held_out = _packing(recipe, start, "dev") if recipe.validate_every else None
        facts = start.facts | {"order_of_sentences": packing.stream.hash}
        run.check(facts)
        set_learning(start.model, recipe.stage, recipe.lora)
        if processes.device().type == "cpu":  # a quarter of the step faster there, least where sequences are long
            start.model.set_attn_implementation("eager")
        learner = Learner(start.model, recipe.loss, start.semantic_targets(recipe.loss.distillation))
        engine = Engine(learner, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        learner.train()

        cursor = run.checkpoint.description["cursor"] if run.checkpoint else 0
        batches = packing.read(cursor, recipe.batch, processes.rank(), processes.world_size())
        for step in run.steps():
            mine = [next(batches) for _ in range(engine.share)]
            counts = global_counts(mine)
            for batch, _ in zip(mine, engine.micro_batches(step), strict=True):
                losses = _losses(engine, batch, counts, recipe)
                engine.backward(losses["loss"], names=batch.names)
                engine.record(**losses)
                run.journal.count(rows=int(batch.mask.any(-1).sum()))
            engine.step()
            if run.log_due(step):
                run.journal.write(step, engine.metrics())
            if run.validate_due(step):
                run.journal.write(step, validate(engine, held_out, recipe))
            if run.save_due(step):
                write = start.writer(recipe.lora, recipe.init)
                run.save(step, {"model": engine}, write, facts | {"cursor": mine[-1].cursor})
    return run.model


def validate(engine: Engine, packing: Packing, recipe: LanguageModelRecipe) -> dict[str, float]:
    """Losses and accuracies on the same sentences of the dev split every time: no dropout, nothing hidden."""
    batches = packing.read(0, recipe.batch, processes.rank(), processes.world_size())
    with engine.evaluating():
        for _ in range(recipe.validation_steps):
            mine = list(islice(batches, engine.share))
            counts = global_counts(mine)
            for batch in mine:
                engine.record(**_losses(engine, batch, counts, recipe))
    return {f"validation_{name}": value for name, value in engine.recorded().items()}


def global_counts(batches: Sequence[PackedBatch]) -> LossCounts:
    """Targets in the micro-batches of one step, over all processes. Collective."""
    text = audio = 0.0
    for batch in batches:
        is_text, is_audio, weight = select_targets(batch.mask, batch.loss, batch.position_ids)
        text, audio = text + float((weight * is_text).sum()), audio + float(is_audio.sum())
    totals = [sum(part) for part in zip(*processes.gather((text, audio)), strict=True)]
    return LossCounts(*(torch.tensor(total, device=processes.device()) for total in totals))


def _losses(engine: Engine, batch: PackedBatch, counts: LossCounts, recipe: LanguageModelRecipe) -> dict[str, Tensor]:
    """Losses of a micro-batch, scaled so that their mean over the step's micro-batches is the exact loss of the step.

    The model divides its sums by the counts of the whole step, on all processes; the engine averages micro-batches.
    Losses without a weight in this recipe, and accuracies without a target in this batch, are left out.
    """
    loss, scale = recipe.loss, recipe.engine.micro_batches
    output, distillation = engine(*(part.to(engine.device) for part in batch[:4]), counts)
    losses = {"loss": output.loss * scale + loss.distillation * distillation}
    if loss.text:
        losses["text_loss"] = output.text_loss * scale
    if loss.audio:
        losses["audio_loss"] = output.audio_loss * scale
    if loss.distillation:
        losses["distillation"] = distillation
    is_text, is_audio, weight = select_targets(batch.mask, batch.loss, batch.position_ids)
    if loss.text and (weight * is_text).any():
        losses["text_accuracy"] = output.text_accuracy
    if loss.audio and (weight * is_audio).any():
        losses["audio_accuracy"] = output.per_stream_accuracy.mean()
    return losses


def _packing(recipe: LanguageModelRecipe, start: StartingPoint, split: str) -> Packing:
    """The recipe's sentences. Those of the dev split keep their conditions, and their texts are their own clips'."""
    mixture, options = recipe.mixture, {}
    if split == "dev":
        mixture, options = recipe.validation_mixture or mixture, {"guidance_dropout": 0.0}
    else:
        options["texts"] = [line for path in recipe.texts for line in read_lines(path)]
    stream = SentenceStream(start.store, mixture, recipe.seed, split, max_rows=recipe.context, **options)
    return Packing(stream, start.layout, start.tokenizer, recipe.context)
