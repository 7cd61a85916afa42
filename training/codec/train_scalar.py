"""Codec stage 0: the scalar autoencoder, whose latents are the flow decoder's target (ReasoningCodec's SQCodec).

Loss = reconstruction + adversarial + feature matching + a small pull of the latents towards zero, which keeps them
away from the flat ends of tanh. The decoder is given latents with noise, so that it tolerates the flow's small errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.numbers import Count, NonNegative, Seconds, Size
from codec.reasoning.config import ScalarConfig
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, Decibels, load_batch, random_gains
from training.codec.losses.adversary import AdversaryRecipe, generator_losses
from training.codec.losses.discriminator import Discriminator, discriminator_loss
from training.codec.losses.spectral_loss import LogMagnitudeLoss, MultiResolutionSpectralLoss, masked_mean
from training.codec.losses.weighted_sum import weighted_sum
from training.engine.engine import Engine
from training.recipe import Corpora, OptimiserRecipe, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ScalarRecipe(Recipe):
    """Training of the scalar autoencoder."""

    READS = ("corpora",)

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # its sizes
    autoencoder: ScalarConfig = field(default_factory=ScalarConfig)
    # clips in a micro-batch
    batch: Size = 8
    # seconds of a crop, at most
    crop_seconds: Seconds = 1.0
    # standard deviation of the noise that is added to the latents before the decoder
    noise: NonNegative = 0.1
    # weight of the mean square of the latents before tanh, which keeps them away from its flat ends
    latent_weight: NonNegative = 0.1
    # micro-batches to which the principal components are fitted
    fit_batches: Count = 100
    # whether these count errors alike all over the mel scale, as ears do, rather than in every bin alike
    mel_weighted: bool = False
    # dB; crops are scaled by a random gain between this and +3 dB
    quietest_db: Decibels = -12.0
    # the discriminator; left out: no adversarial loss
    adversary: AdversaryRecipe | None = None

    def __post_init__(self) -> None:
        if self.autoencoder.sample_rate != SAMPLE_RATE:
            raise UserError(f"autoencoder.sample_rate must be {SAMPLE_RATE}, the rate of every waveform here")
        if self.mel_weighted and not self.autoencoder.principal_components:
            raise UserError("mel_weighted is about principal components: set autoencoder.principal_components as well")


def run(recipe: ScalarRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the autoencoder, which ScalarAutoencoder.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        autoencoder = ScalarAutoencoder(recipe.autoencoder)
        if recipe.autoencoder.principal_components and run.checkpoint is None:
            batches = (load_batch(train.batch(index)) for index in range(recipe.fit_batches))
            autoencoder.fit_principal_components(batches, recipe.mel_weighted)
        engines = {"model": _engine(recipe, autoencoder, recipe.optimiser, run, "model")}
        engine, adversary = engines["model"], recipe.adversary
        reconstruction = ReconstructionLoss(autoencoder).to(engine.device)
        if adversary is not None:
            discriminator = Discriminator(adversary.fft_sizes, adversary.channels)
            discriminator = _engine(recipe, discriminator, adversary.optimiser, run, "discriminator")
            engines["discriminator"] = discriminator
        weights = loss_weights(recipe)

        for step in run.steps():
            adversarial_active = adversary is not None and step >= adversary.start_step
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                names = [crop.clip.id for crop in crops]
                waveforms, lengths = (x.to(engine.device) for x in load_batch(crops))
                waveforms = autoencoder.pad(waveforms * random_gains(len(crops), recipe.quietest_db).to(engine.device))
                raw, signal = engine(waveforms, lengths, noise=recipe.noise)
                losses = reconstruction(signal, waveforms, lengths)
                losses["latent_power"] = masked_mean(raw.square(), reconstruction.frames(lengths))
                if adversarial_active:
                    decoded = autoencoder.waveform(signal, lengths)
                    losses |= generator_losses(discriminator, waveforms, decoded)
                loss = weighted_sum(losses, weights)
                engine.backward(loss, names=names)
                if adversarial_active:
                    real, fake = discriminator(waveforms), discriminator(decoded.detach())
                    losses["discriminator"] = discriminator_loss(real, fake)
                    discriminator.backward(losses["discriminator"], names=names)
                engine.record(loss=loss, **losses)
                run.metric_logger.count(audio_seconds=float(lengths.sum()) / SAMPLE_RATE)
            engine.step()
            if adversarial_active:
                discriminator.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    losses = validate(engine, reconstruction, held_out)
                run.metric_logger.write(step, losses)
            if run.save_due(step):
                run.save(step, engines, autoencoder.save_pretrained, facts)
    return run.model


def loss_weights(recipe: ScalarRecipe) -> dict[str, float]:
    """Weight of each loss; the adversarial ones apply from `adversary.start_step` on."""
    weights = {"reconstruction": 1.0, "latent_power": recipe.latent_weight}
    if recipe.adversary is not None:
        weights |= {"adversarial": recipe.adversary.weight, "features": recipe.adversary.feature_weight}
    return weights


class ReconstructionLoss(nn.Module):
    """Distance of the decoded signal from the input waveforms.

    `waveform`: multi-resolution spectral loss and L1 of the samples. `stft`: the distance of the log magnitudes; phase
    is not trained and no waveform is made.
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

    def forward(self, signal: Tensor, waveforms: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """The loss, under "reconstruction", and its unweighted terms; scalars.

        Args:
            signal: (B, num_bands, steps) as decoded.
            waveforms: (B, T25 960).
            lengths: (B,) samples.
        """
        if self.config.front_end == "stft":
            steps = self.frames(lengths) * (self.config.samples_per_frame // self.config.hop)
            loss, terms = self.spectral(signal, self.signal(waveforms), steps)
            return {"reconstruction": loss} | terms
        decoded = self.waveform(signal, lengths)
        loss, terms = self.spectral(decoded, waveforms, lengths)
        samples = masked_mean((decoded - waveforms).abs()[:, None], lengths)
        return {"reconstruction": loss + samples, "samples": samples} | terms


def validate(
    engine: Engine, reconstruction: ReconstructionLoss, crops: AudioCrops, batches: int = 8
) -> dict[str, float]:
    """Reconstruction losses on the same few held-out batches every time, without noise, and the latents' power."""
    totals: dict[str, float] = {}
    for index in range(batches):
        waveforms, lengths = (x.to(engine.device) for x in load_batch(crops.batch(index)))
        waveforms = engine.model.pad(waveforms)
        raw, signal = engine(waveforms, lengths)
        losses = reconstruction(signal, waveforms, lengths)
        losses["latent_power"] = masked_mean(raw.square(), reconstruction.frames(lengths))
        losses["loss"] = losses.pop("reconstruction")
        for name, value in losses.items():
            totals[f"val/{name}"] = totals.get(f"val/{name}", 0.0) + float(value) / batches
    return totals


def _engine(recipe: ScalarRecipe, model: nn.Module, optimiser: OptimiserRecipe, run: Run, name: str) -> Engine:
    return Engine(model, optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state(name))
