"""Codec stage 0: the scalar autoencoder, whose latents the flow decoder will aim at (ReasoningCodec's SQCodec).

Loss = reconstruction + adversarial + feature matching + a small pull of the latents towards zero, which keeps them
away from the flat ends of tanh. The decoder hears latents with noise, so that it forgives the flow its small errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.numbers import Count, Filled, NonNegative, Range, Seconds, Size, Width
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, load_batch, train_and_held_out
from training.codec.losses.discriminator import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)
from training.codec.losses.spectral_loss import LogMagnitudeLoss, MultiResolutionSpectralLoss, masked_mean
from training.engine.engine import Engine
from training.recipe import Corpora, OptimiserRecipe, Recipe
from training.resume import Resume
from training.run import Run

WindowSize = Annotated[int, Range(16, 2**16)]  # samples of a spectrum's window
Decibels = Annotated[float, Range(-120, 3)]  # up to the gain of the loudest crop


@dataclass(frozen=True, kw_only=True)
class AdversaryRecipe:
    """The discriminator and its part in the loss.

    start_step: first update with it; weight, feature_weight: of the adversarial and feature-matching losses
    fft_sizes, channels: of codec.discriminator.Discriminator
    """

    start_step: Count = 1
    weight: NonNegative = 1.0
    feature_weight: NonNegative = 2.0
    fft_sizes: Annotated[tuple[WindowSize, ...], Filled()] = (512, 1024, 2048)
    channels: Width = 32
    optimiser: OptimiserRecipe = OptimiserRecipe(betas=(0.8, 0.99), weight_decay=0.0)


@dataclass(frozen=True, kw_only=True)
class ScalarRecipe(Recipe):
    """What the scalar autoencoder learns from and how.

    corpora: folders of corpora
    batch: clips in a micro-batch; crop_seconds: longer clips give a random stretch of that length
    noise: deviation of the noise on the latents that the decoder hears
    latent_weight: of the mean square of the latents before tanh; keeps them away from its flat ends
    fit_batches: micro-batches to which the principal components are fitted
    quietest_db: crops are scaled by a random gain between this and +3 dB
    adversary: None trains on the reconstruction alone
    """

    READS = ("corpora",)

    corpora: Corpora
    autoencoder: ScalarConfig = field(default_factory=ScalarConfig)
    batch: Size = 8
    crop_seconds: Seconds = 1.0
    noise: NonNegative = 0.1
    latent_weight: NonNegative = 0.1
    fit_batches: Count = 100
    quietest_db: Decibels = -12.0
    adversary: AdversaryRecipe | None = None

    def __post_init__(self) -> None:
        if self.autoencoder.sample_rate != SAMPLE_RATE:
            raise UserError(f"autoencoder.sample_rate must be {SAMPLE_RATE}, the rate of every waveform here")


def run(recipe: ScalarRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the autoencoder, which ScalarAutoencoder.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = train_and_held_out(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        autoencoder = ScalarAutoencoder(recipe.autoencoder)
        if recipe.autoencoder.principal_components and run.checkpoint is None:
            autoencoder.fit_principal_components(load_batch(train.batch(i)) for i in range(recipe.fit_batches))
        engines = {"model": _engine(recipe, autoencoder, recipe.optimiser, run, "model")}
        engine, adversary = engines["model"], recipe.adversary
        reconstruction = Reconstruction(autoencoder).to(engine.device)
        if adversary is not None:
            discriminator = Discriminator(adversary.fft_sizes, adversary.channels)
            critic = engines["critic"] = _engine(recipe, discriminator, adversary.optimiser, run, "critic")

        for step in run.steps():
            adversarial_active = adversary is not None and step >= adversary.start_step
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                waveforms, lengths = (x.to(engine.device) for x in load_batch(crops))
                waveforms = autoencoder.pad(waveforms * random_gains(len(crops), recipe.quietest_db).to(engine.device))
                raw, signal = engine(waveforms, lengths, noise=recipe.noise)
                loss, terms = reconstruction(signal, waveforms, lengths)
                terms["latent_power"] = masked_mean(raw.square(), reconstruction.frames(lengths))
                loss = loss + recipe.latent_weight * terms["latent_power"]
                if adversarial_active:
                    decoded = autoencoder.waveform(signal, lengths)
                    with critic.frozen():
                        real, fake = critic(waveforms), critic(decoded)
                        terms["adversarial"] = adversarial_loss(fake)
                        terms["features"] = feature_matching_loss(real, fake)
                    loss = loss + adversary.weight * terms["adversarial"] + adversary.feature_weight * terms["features"]
                engine.backward(loss, names=[crop.clip.id for crop in crops])
                if adversarial_active:
                    terms["critic"] = discriminator_loss(critic(waveforms), critic(decoded.detach()))
                    critic.backward(terms["critic"], names=[crop.clip.id for crop in crops])
                engine.record(loss=loss, **terms)
                run.metric_logger.count(audio_seconds=float(lengths.sum()) / SAMPLE_RATE)
            engine.step()
            if adversarial_active:
                critic.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    run.metric_logger.write(step, validate(engine, reconstruction, held_out))
            if run.save_due(step):
                run.save(step, engines, autoencoder.save_pretrained, facts)
    return run.model


class Reconstruction(nn.Module):
    """How far the decoded signal is from the waveforms that went in.

    `waveform`: multi-resolution spectral loss and L1 of the samples. `stft`: the distance of the log magnitudes; the
    phase is not learned and no waveform is made.
    """

    def __init__(self, autoencoder: ScalarAutoencoder) -> None:
        super().__init__()
        # Bound methods, not the module: its parameters are the engine's.
        self.config, self.signal, self.waveform = autoencoder.config, autoencoder.signal, autoencoder.waveform
        if autoencoder.spectrogram is None:
            self.spectral = MultiResolutionSpectralLoss(self.config.sample_rate)
        else:
            self.spectral = LogMagnitudeLoss(autoencoder.spectrogram, self.config.sample_rate)

    def frames(self, lengths: Tensor) -> Tensor:
        """Latent frames of clips of (B,) samples."""
        return -(-lengths // self.config.samples_per_frame)

    def forward(self, signal: Tensor, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """signal (B, num_bands, steps) as decoded, waveforms (B, T25 960), lengths (B,) samples -> loss, its terms."""
        if self.config.front_end == "stft":
            steps = self.frames(lengths) * (self.config.samples_per_frame // self.config.hop)
            return self.spectral(signal, self.signal(waveforms), steps)
        decoded = self.waveform(signal, lengths)
        loss, terms = self.spectral(decoded, waveforms, lengths)
        terms["samples"] = masked_mean((decoded - waveforms).abs()[:, None], lengths)
        return loss + terms["samples"], terms


def random_gains(count: int, quietest_db: float) -> Tensor:
    """(count, 1) factors between `quietest_db` and +3 dB, from the seeded generator."""
    return 10 ** ((quietest_db + (3.0 - quietest_db) * torch.rand(count, 1)) / 20)


def validate(engine: Engine, reconstruction: Reconstruction, crops: AudioCrops, batches: int = 8) -> dict[str, float]:
    """Reconstruction losses on the same few held-out batches every time, without noise, and the latents' power."""
    totals: dict[str, float] = {}
    for index in range(batches):
        waveforms, lengths = (x.to(engine.device) for x in load_batch(crops.batch(index)))
        waveforms = engine.model.pad(waveforms)
        raw, signal = engine(waveforms, lengths)
        loss, terms = reconstruction(signal, waveforms, lengths)
        terms |= {"loss": loss, "latent_power": masked_mean(raw.square(), reconstruction.frames(lengths))}
        for name, value in terms.items():
            totals[f"held_out_{name}"] = totals.get(f"held_out_{name}", 0.0) + float(value) / batches
    return totals


def _engine(recipe: ScalarRecipe, model: nn.Module, optimiser: OptimiserRecipe, run: Run, name: str) -> Engine:
    return Engine(model, optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state(name))
