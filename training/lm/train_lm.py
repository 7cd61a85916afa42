"""Stages 1 to 4 of the language model (UniAudio 2.0 §4.4): one loop, four recipes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from auditory_sentences.stream.packing import PackedBatch, Packing
from lm.lean_layers import make_lean
from lm.losses import LossCounts, select_targets
from training.engine import processes
from training.engine.engine import Engine
from training.lm.another_codec import fit_to_store
from training.lm.recipe import LanguageModelRecipe
from training.lm.sentences import sentence_stream
from training.lm.stages import TrainingModule, freeze_for_stage
from training.lm.starting_point import StartingPoint
from training.resume import Resume
from training.run import Run


def run(recipe: LanguageModelRecipe, resume: Resume = False) -> Path:
    """Train one stage, and return the folder of model and tokenizers, which UniAudio.from_pretrained reads."""
    recipe, changes = fit_to_store(recipe)
    with Run(recipe, resume) as run:
        for change in changes:
            run.metric_logger.info(change)
        start = StartingPoint.load(recipe)
        packing = _packing(recipe, start, "train")
        held_out = _packing(recipe, start, "dev") if recipe.validate_every else None
        facts = start.facts | {"order_of_sentences": packing.stream.hash}
        run.check(facts)
        start.model.config.tasks = trained_tasks(start.model.config.tasks, recipe)
        freeze_for_stage(start.model, recipe.stage, recipe.lora)
        if processes.device().type == "cpu":
            make_lean(start.model)
        model = TrainingModule(start.model, recipe.loss, start.semantic_targets(recipe.loss.distillation))
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        model.train()

        cursor = run.checkpoint.position("cursor") if run.checkpoint else 0
        batches = packing.read(cursor, recipe.batch, processes.rank(), processes.world_size())
        for step in run.steps():
            step_batches = [next(batches) for _ in range(engine.micro_batches_per_rank)]
            counts = global_counts(step_batches)
            for batch, _ in zip(step_batches, engine.micro_batches(step), strict=True):
                losses = micro_batch_losses(engine, batch, counts, recipe)
                engine.backward(losses["loss"], names=batch.names)
                engine.record(**losses)
                run.metric_logger.count(rows=int(batch.mask.any(-1).sum()))
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                run.metric_logger.write(step, validate(engine, held_out, recipe))
            if run.save_due(step):
                write = start.writer(recipe.lora, recipe.init)
                run.save(step, {"model": engine}, write, facts | {"cursor": step_batches[-1].cursor})
    return run.model


def trained_tasks(before: Sequence[str] | None, recipe: LanguageModelRecipe) -> list[str] | None:
    """What a model was trained on that began with `before` and then had this recipe; None where that is not known."""
    if recipe.init and before is None:
        return None
    return sorted({*(before or ()), *(name for name, weight in recipe.mixture.items() if weight)})


def validate(engine: Engine, packing: Packing, recipe: LanguageModelRecipe) -> dict[str, float]:
    """Losses and accuracies on the same sentences of the dev split every time, without any dropout."""
    batches = packing.read(0, recipe.batch, processes.rank(), processes.world_size())
    with engine.evaluating():
        for _ in range(recipe.validation_steps):
            step_batches = list(islice(batches, engine.micro_batches_per_rank))
            counts = global_counts(step_batches)
            for batch in step_batches:
                engine.record(**micro_batch_losses(engine, batch, counts, recipe))
    return {f"val/{name}": value for name, value in engine.recorded().items()}


def global_counts(batches: Sequence[PackedBatch]) -> LossCounts:
    """Targets in the micro-batches of one step, over all processes. Collective."""
    text = audio = 0.0
    for batch in batches:
        is_text, is_audio, weight = select_targets(batch.mask, batch.loss, batch.position_ids)
        text, audio = text + float((weight * is_text).sum()), audio + float(is_audio.sum())
    return LossCounts(*(torch.tensor(count, device=processes.device()) for count in processes.total(text, audio)))


def micro_batch_losses(
    engine: Engine, batch: PackedBatch, counts: LossCounts, recipe: LanguageModelRecipe
) -> dict[str, Tensor]:
    """Losses of a micro-batch, scaled so that their mean over the step's micro-batches is the exact loss of the step.

    The model divides its sums by the counts of the whole step, on all processes; the engine averages micro-batches.
    Losses without a weight in this recipe, and accuracies without a target in this batch, are left out.
    """
    loss, scale = recipe.loss, engine.global_micro_batches
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
    stream = sentence_stream(recipe, start.store, split)
    return Packing(stream, start.layout, start.tokenizer, recipe.context)
