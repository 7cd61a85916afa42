"""X-Codec: one quantiser around which an acoustic and a semantic branch are trained together (Ye et al. 2024).

Loss = reconstruction of the sound (multi-resolution mel and STFT, samples) + reconstruction of the teacher's features
+ commitment + adversarial + feature matching. A random number of codebooks is in use in each update, so that the first
ones alone are a codec too. Without a teacher the same loop trains the paper's baseline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import resample

from auditory_sentences.rng import KeyedRng
from codec.io.errors import UserError
from codec.io.numbers import Filled, Layers, NonNegative, Seconds, Size
from codec.layers.acoustic import ResidualUnit, apply_weight_norm, folded
from codec.layers.initialisation import initialise_from_data
from codec.layers.masks import length_mask
from codec.tokenizer import load_tokenizer
from codec.tokens import SAMPLE_RATE
from codec.xcodec.codec import XCodec, XCodecOutput
from codec.xcodec.config import XCodecConfig
from codec.xcodec.semantic import SemanticUnit
from training.codec.audio_crops import AudioCrops, Decibels, load_batch, random_gains
from training.codec.losses.adversary import AdversaryRecipe, generator_losses
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.losses.discriminator import Discriminator, discriminator_loss
from training.codec.losses.spectral_loss import MultiResolutionSpectralLoss, masked_mean
from training.codec.losses.weighted_sum import weighted_sum
from training.engine.engine import Engine
from training.recipe import Corpora, OptimiserRecipe, Recipe
from training.resume import Resume
from training.run import Run

_RESIDUAL_DEVIATION = 0.3  # at first, of what a residual unit adds to a path of deviation 1


@dataclass(frozen=True, kw_only=True)
class XCodecRecipe(Recipe):
    """Training of an X-Codec."""

    READS = ("corpora", "init")

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # folder or hub id of an X-Codec, ours or transformers', whose training continues; empty: a new one
    init: str = ""
    # its sizes and its teacher; left out: those of init, or the published ones; teacher: null trains the baseline
    # without semantics
    codec: XCodecConfig | None = None
    # clips in a micro-batch
    batch: Size = 8
    # seconds of a crop, at most
    crop_seconds: Seconds = 3.0
    # dB; crops are scaled by a random gain between this and +3 dB
    quietest_db: Decibels = -12.0
    # numbers of codebooks of which each update draws one; those above the codec's own are left out
    codebooks_drawn: Annotated[tuple[Layers, ...], Filled()] = (1, 2, 3, 4, 8)
    # weight of the teacher's features, as mean squared error
    semantic_weight: NonNegative = 100.0
    # weight of the distance between frames and their codes
    commitment_weight: NonNegative = 1.0
    # the discriminator; left out: no adversarial loss
    adversary: AdversaryRecipe | None = None
    # AdamW and its schedule
    optimiser: OptimiserRecipe = OptimiserRecipe(lr=2e-4, betas=(0.8, 0.99), weight_decay=0.0)

    def __post_init__(self) -> None:
        sizes = self.codec
        if sizes is None and not self.init:
            sizes = XCodecConfig()
        if sizes is None:
            return  # checked once init is read
        if sizes.codebooks_used is not None:
            raise UserError("codec.codebooks_used is for a trained codec; leave it out: all of them are trained")
        if not any(count <= sizes.codebooks for count in self.codebooks_drawn):
            raise UserError(f"codebooks_drawn: the codec has only {sizes.codebooks} codebooks; draw fewer")


def run(recipe: XCodecRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the codec, which `load_tokenizer` reads."""
    with Run(recipe, resume) as run:
        train, held_out = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        codec = codec_to_train(recipe)
        config = codec.config
        if run.checkpoint is None and not recipe.init:
            initialise(codec, *load_batch(train.batch(0)))
        apply_weight_norm(codec.acoustic_encoder)
        apply_weight_norm(codec.acoustic_decoder)
        engine = Engine(codec, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state("model"))
        engines, adversary = {"model": engine}, recipe.adversary
        if adversary is not None:
            engines["discriminator"] = discriminator = Engine(
                Discriminator(adversary.fft_sizes, adversary.channels),
                adversary.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state("discriminator"),
            )  # fmt: skip
        spectral = MultiResolutionSpectralLoss(codec.sample_rate).to(engine.device)
        usage = CodebookUsage(config.codes, {"codes": range(config.codebooks)})
        weights = loss_weights(recipe)
        codec.train()

        for step in run.steps():
            adversarial_active = adversary is not None and step >= adversary.start_step
            codebooks = drawn_codebooks(recipe, config.codebooks, step)
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                names = [crop.clip.id for crop in crops]
                waveforms, lengths = (x.to(engine.device) for x in at_rate(*load_batch(crops), codec))
                waveforms = waveforms * random_gains(len(crops), recipe.quietest_db).to(engine.device)
                made = engine(waveforms, frame_mask(codec, waveforms, lengths), codebooks)
                losses = codec_losses(codec, spectral, made, waveforms, lengths)
                if adversarial_active:
                    losses |= generator_losses(discriminator, waveforms, made.waveforms)
                loss = weighted_sum(losses, weights)
                engine.backward(loss, names=names)
                if adversarial_active:
                    real, fake = discriminator(waveforms), discriminator(made.waveforms.detach())
                    losses["discriminator"] = discriminator_loss(real, fake)
                    discriminator.backward(losses["discriminator"], names=names)
                engine.record(loss=loss, **losses)
                usage.count(F.pad(made.ids, (0, config.codebooks - codebooks), value=-1))
                run.metric_logger.count(audio_seconds=float(lengths.sum()) / codec.sample_rate)
            engine.step()
            if adversarial_active:
                discriminator.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | usage.report())
            if run.validate_due(step):
                with engine.evaluating():
                    losses = validate(engine, codec, spectral, held_out)
                run.metric_logger.write(step, losses)
            if run.save_due(step):
                run.save(step, engines, lambda folder, state: write(codec, folder, state), facts)
    return run.model


def loss_weights(recipe: XCodecRecipe) -> dict[str, float]:
    """Weight of each loss; those that a codec or an update has not are not asked for."""
    weights = {"reconstruction": 1.0, "semantic": recipe.semantic_weight, "commitment": recipe.commitment_weight}
    if recipe.adversary is not None:
        weights |= {"adversarial": recipe.adversary.weight, "features": recipe.adversary.feature_weight}
    return weights


def codec_to_train(recipe: XCodecRecipe) -> XCodec:
    """A new codec of the recipe's sizes, or that of init with all of its codebooks.

    Raises:
        UserError: init is no X-Codec, or one of other sizes than the recipe states.
    """
    if not recipe.init:
        return XCodec(recipe.codec or XCodecConfig())
    codec = load_tokenizer(recipe.init)
    if not isinstance(codec, XCodec):
        raise UserError(
            f"init: {recipe.init} holds a tokenizer of type {codec.tokenizer_type}; name an X-Codec's folder"
        )
    config = replace(codec.config, codebooks_used=None)
    if recipe.codec not in (None, config):
        raise UserError(f"init: {recipe.init} has other sizes than this recipe states; leave codec out")
    replace(recipe, codec=config)  # checks the codebooks that are drawn
    codec.config = config
    for level in codec.quantiser.layers:
        book = level._codebook
        book.initted.fill_(True)
        if not book.cluster_size.any():  # a release without what its codes were averaged from
            book.cluster_size.fill_(max(1.0, 2 * config.dead_code_threshold))  # so that none is taken for dead at once
            book.embed_avg.copy_(book.embed * book.cluster_size[..., None])
    return codec


def initialise(codec: XCodec, waveforms: Tensor, lengths: Tensor) -> None:
    """Set the scales of all layers from crops (B, n) at 24 kHz, as long as (B,) samples."""
    waveforms, _ = at_rate(waveforms, lengths, codec)
    target = None if codec.teacher is None else codec.teacher.features(waveforms)
    # What is added to a residual path is small beside it, and sound and features begin as loud as those of the data.
    deviations: dict[nn.Module, float] = {
        part.conv_out: _RESIDUAL_DEVIATION for part in codec.modules() if isinstance(part, ResidualUnit | SemanticUnit)
    }
    deviations[codec.acoustic_decoder.conv_out] = float(waveforms.std())
    if target is not None:
        deviations[codec.semantic_decoder.conv_out] = float(target.std())

    def forward() -> None:
        frames = codec.frames_of(waveforms, target)
        codec.waveforms_of(frames)
        if target is not None:
            codec.features_of(frames)

    initialise_from_data(codec, forward, deviations)


def drawn_codebooks(recipe: XCodecRecipe, codebooks: int, step: int) -> int:
    """Codebooks of an update, of so many. The first uses all, so that all of them begin from vectors of this data."""
    if step == 1:
        return codebooks
    choices = [count for count in recipe.codebooks_drawn if count <= codebooks]
    return KeyedRng("codebooks", recipe.seed, step).choice(choices)


def at_rate(waveforms: Tensor, lengths: Tensor, codec: XCodec) -> tuple[Tensor, Tensor]:
    """Crops at 24 kHz -> at the codec's rate, filled up to whole frames: (B, hop T), and their lengths in samples."""
    lengths = -(-lengths * codec.sample_rate // SAMPLE_RATE)
    waveforms = resample(waveforms, SAMPLE_RATE, codec.sample_rate)
    return F.pad(waveforms, (0, -waveforms.shape[1] % codec.config.hop)), lengths


def frame_mask(codec: XCodec, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) bool: frames of which something is sound of the clip."""
    hop = codec.config.hop
    return length_mask(-(-lengths // hop), waveforms.shape[1] // hop)


def codec_losses(
    codec: XCodec, spectral: MultiResolutionSpectralLoss, made: XCodecOutput, waveforms: Tensor, lengths: Tensor
) -> dict[str, Tensor]:
    """Losses by name, unweighted; "reconstruction" beside its terms. Scalars.

    Args:
        codec: Whose output it is.
        spectral: Of the sound.
        made: The output for `waveforms`.
        waveforms: (B, hop T).
        lengths: (B,) samples of each clip.
    """
    kept = length_mask(lengths, waveforms.shape[1])  # (B, n): what is decoded beyond a clip's end is nobody's
    loss, terms = spectral(made.waveforms * kept, waveforms * kept, lengths)
    samples = masked_mean((made.waveforms - waveforms).abs()[:, None], lengths)
    losses = {"reconstruction": loss + samples, "samples": samples, **terms, "commitment": made.losses.mean()}
    if made.features is not None and made.target is not None:
        frames = -(-lengths // codec.config.hop) * codec.config.semantic.stride
        losses["semantic"] = masked_mean((made.features - made.target).square(), frames)
    return losses


def validate(
    engine: Engine, codec: XCodec, spectral: MultiResolutionSpectralLoss, crops: AudioCrops, batches: int = 8
) -> dict[str, float]:
    """The losses with all codebooks on the same few held-out batches every time."""
    totals: dict[str, float] = {}
    for index in range(batches):
        waveforms, lengths = (x.to(engine.device) for x in at_rate(*load_batch(crops.batch(index)), codec))
        made = engine(waveforms, frame_mask(codec, waveforms, lengths))
        losses = codec_losses(codec, spectral, made, waveforms, lengths)
        losses["loss"] = losses.pop("reconstruction")
        del losses["commitment"]  # none outside training
        for name, value in losses.items():
            totals[f"val/{name}"] = totals.get(f"val/{name}", 0.0) + float(value) / batches
    return totals


def write(codec: XCodec, folder: Path, state: Mapping[str, Tensor]) -> None:
    """Save what is trained so far, with whole weights in place of their directions and lengths."""
    plain = XCodec(codec.config)
    plain.load_state_dict(folded(state))
    plain.eval().save_pretrained(folder)
