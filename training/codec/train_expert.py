"""Codec stage 0, where no music encoder can be had: train one from nothing by masked prediction (BEST-RQ).

Loss = cross-entropy of the codes of hidden frames. Nothing is annotated: any sound teaches. What it makes serves the
codec as expert encoder of the role music, of kind conformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.numbers import Count, Seconds, Size
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, Crop, load_batch, train_and_held_out
from training.codec.losses.best_rq import MaskedPrediction, MaskedPredictionConfig, stacked
from training.codec.losses.codebook_usage import CodebookUsage
from training.engine.engine import Engine, seed_everything
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(Recipe):
    """What the music encoder learns from and how.

    corpora: folders or descriptions of corpora; their train clips teach, their dev clips are held out
    encoder: its sizes; prediction: the task
    batch: clips in a micro-batch, all cut to the length of the shortest; crop_seconds: the longest stretch of a clip
    statistics_batches: training batches over which statistics are taken: of the spectra, for the quantiser, at the
        start, and of the batch norms for every encoder that is saved
    held_out_batches: that are predicted at validation
    """

    READS = ("corpora",)

    corpora: Corpora
    encoder: MusicEncoderConfig = field(default_factory=MusicEncoderConfig)
    prediction: MaskedPredictionConfig = MaskedPredictionConfig()
    batch: Size = 8
    crop_seconds: Seconds = 30.0
    statistics_batches: Count = 20
    held_out_batches: Count = 8

    def __post_init__(self) -> None:
        if self.encoder.sample_rate != SAMPLE_RATE:
            raise UserError(f"encoder.sample_rate must be {SAMPLE_RATE}, the rate of every waveform here")
        if self.engine.precision == "bf16":
            raise UserError("engine.precision bf16 would round spectra and codes; use mixed for a music encoder")


def run(recipe: ExpertRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the encoder, which MusicEncoder.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = train_and_held_out(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        encoder = MusicEncoder(recipe.encoder)
        model = MaskedPrediction(encoder, recipe.prediction)
        if run.checkpoint is None:
            measure_spectra(model, train, recipe.statistics_batches)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        usage = CodebookUsage(recipe.prediction.codes, {"targets": range(1)})

        def write_model(folder: Path, state: dict[str, Tensor]) -> None:
            encoder.save_pretrained(
                folder, {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
            )

        for step in run.steps():
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                waveforms = equally_long(crops, recipe.encoder.samples_per_frame).to(engine.device)
                out = engine(waveforms)
                engine.backward(out.loss, names=[crop.clip.id for crop in crops])
                engine.record(loss=out.loss, accuracy=out.accuracy)
                usage.count(out.targets[:, None])
                run.metric_logger.count(audio_seconds=waveforms.numel() / SAMPLE_RATE)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | usage.report())
            validate_due, save_due = run.validate_due(step), run.save_due(step)
            if validate_due or save_due:
                settle_statistics(engine, train, recipe)
            if validate_due:
                with engine.evaluating():
                    run.metric_logger.write(step, validate(engine, held_out, recipe))
            if save_due:
                run.save(step, {"model": engine}, write_model, facts)
    return run.model


def equally_long(crops: Sequence[Crop], frame: int) -> Tensor:
    """Waveforms (B, n) cut to the whole frames of the shortest crop, so that the batch norms count no padding.

    frame: samples of a frame. Crops of a batch are of similar length; one shorter than a frame ends in silence.
    """
    waveforms, lengths = load_batch(crops)
    length = max(1, int(lengths.min()) // frame) * frame
    return nn.functional.pad(waveforms, (0, max(0, length - waveforms.shape[1])))[:, :length]


def measure_spectra(model: MaskedPrediction, train: AudioCrops, batches: int) -> None:
    """Fit the quantiser's standardisation to the first training batches; the same ones on every process."""
    vectors = []
    for index in range(batches):
        waveforms = equally_long(train.batch(index), model.encoder.config.samples_per_frame)
        vectors.append(stacked(model.encoder.mel(waveforms)).flatten(0, 1))
    model.quantiser.measure(torch.cat(vectors))


@torch.no_grad()
def settle_statistics(engine: Engine, train: AudioCrops, recipe: ExpertRecipe) -> None:
    """Set the batch norms' running statistics to plain means over the same training batches, on every process.

    Training itself does not read them. Left to running averages, each process would have its own, and a saved encoder
    would depend on how many processes there were.
    """
    for module in engine.model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None  # averages over all that it sees
    for index in range(recipe.statistics_batches):
        seed_everything(recipe.seed, -2, index)
        engine(equally_long(train.batch(index), recipe.encoder.samples_per_frame).to(engine.device))


def validate(engine: Engine, held_out: AudioCrops, recipe: ExpertRecipe) -> dict[str, float]:
    """Loss and accuracy on the same held-out batches, with the same frames hidden, every time.

    held_out_majority: accuracy of naming the one code that is the most frequent among what is asked; what the encoder
    knows is what it is better by.
    """
    totals, targets = {"held_out_loss": 0.0, "held_out_accuracy": 0.0}, []
    for index in range(recipe.held_out_batches):
        seed_everything(recipe.seed, -3, index)
        out = engine(equally_long(held_out.batch(index), recipe.encoder.samples_per_frame).to(engine.device))
        totals["held_out_loss"] += float(out.loss) / recipe.held_out_batches
        totals["held_out_accuracy"] += float(out.accuracy) / recipe.held_out_batches
        targets.append(out.targets)
    asked = torch.cat(targets)
    return totals | {"held_out_majority": float(asked.bincount().max()) / len(asked)}
