"""Codec stage 0, where no music encoder is available: train one from scratch by masked prediction (BEST-RQ).

Loss = cross-entropy of the codes of masked frames. Nothing needs annotation. The result serves the codec as expert
encoder of the role music, of kind conformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.numbers import Count, Seconds, Size
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, Crop, load_batch
from training.codec.losses.best_rq import MaskedPrediction, MaskedPredictionConfig, stacked
from training.codec.losses.codebook_usage import CodebookUsage
from training.engine.engine import Engine, seed_everything
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ExpertRecipe(Recipe):
    """Masked prediction of a music encoder."""

    READS = ("corpora",)

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # sizes of the encoder
    encoder: MusicEncoderConfig = field(default_factory=MusicEncoderConfig)
    # what is masked and predicted
    prediction: MaskedPredictionConfig = MaskedPredictionConfig()
    # clips in a micro-batch, all cut to the length of the shortest
    batch: Size = 8
    # seconds of a crop, at most
    crop_seconds: Seconds = 30.0
    # training batches for statistics: of spectra at the start, of batch norms for every encoder that is saved
    statistics_batches: Count = 20
    # batches of dev clips at validation
    held_out_batches: Count = 8

    def __post_init__(self) -> None:
        if self.encoder.sample_rate != SAMPLE_RATE:
            raise UserError(f"encoder.sample_rate must be {SAMPLE_RATE}, the rate of every waveform here")
        if self.engine.precision == "bf16":
            raise UserError("engine.precision bf16 would round spectra and codes; use mixed for a music encoder")


def run(recipe: ExpertRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the encoder, which MusicEncoder.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        encoder = MusicEncoder(recipe.encoder)
        model = MaskedPrediction(encoder, recipe.prediction)
        if run.checkpoint is None:
            measure_spectra(model, train, recipe.statistics_batches)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        usage = CodebookUsage(recipe.prediction.codes, {"targets": range(1)})
        write = partial(write_model, encoder)

        def listen(index: int) -> None:
            engine(equally_long(train.batch(index), recipe.encoder.samples_per_frame).to(engine.device))

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
                settle_statistics(engine, recipe.seed, recipe.statistics_batches, listen)
            if validate_due:
                with engine.evaluating():
                    run.metric_logger.write(step, validate(engine, held_out, recipe))
            if save_due:
                run.save(step, {"model": engine}, write, facts)
    return run.model


def write_model(encoder: MusicEncoder, folder: Path, state: Mapping[str, Tensor]) -> None:
    """Fill a model folder from the state of what an encoder learns in: the encoder alone."""
    prefix = "encoder."
    encoder.save_pretrained(folder, {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})


def equally_long(crops: Sequence[Crop], frame: int) -> Tensor:
    """Waveforms (B, n) cut to the whole frames of the shortest crop, so that the batch norms count no padding.

    Crops of a batch are of similar length; one shorter than a frame ends in silence.

    Args:
        crops: B of them.
        frame: samples of a frame.
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
def settle_statistics(engine: Engine, seed: int, batches: int, listen: Callable[[int], None]) -> None:
    """Set the batch norms' running statistics to plain means over the same training batches, on every process.

    Training itself does not read them. Left to running averages, each process would have its own, and a saved encoder
    would depend on how many processes there were.

    Args:
        engine: Whose encoder it is.
        seed: Of the recipe.
        batches: How many are heard.
        listen: Runs batch number 0, 1, ... through the engine.
    """
    for module in engine.model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            module.momentum = None  # averages over all that it sees
    for index in range(batches):
        seed_everything(seed, -2, index)
        listen(index)


def validate(engine: Engine, held_out: AudioCrops, recipe: ExpertRecipe) -> dict[str, float]:
    """Loss and accuracy on the same held-out batches, with the same frames masked, every time.

    val/majority is the accuracy of always predicting the most frequent of the target codes: the baseline.
    """
    totals, targets = {"val/loss": 0.0, "val/accuracy": 0.0}, []
    for index in range(recipe.held_out_batches):
        seed_everything(recipe.seed, -3, index)
        out = engine(equally_long(held_out.batch(index), recipe.encoder.samples_per_frame).to(engine.device))
        totals["val/loss"] += float(out.loss) / recipe.held_out_batches
        totals["val/accuracy"] += float(out.accuracy) / recipe.held_out_batches
        targets.append(out.targets)
    codes = torch.cat(targets)
    return totals | {"val/majority": float(codes.bincount().max()) / len(codes)}
