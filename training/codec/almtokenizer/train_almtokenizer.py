"""ALMTokenizer, trained in two stages (Yang et al. 2025).

`autoencoder`  encoder and decoder, queries unquantised: reconstruction (multi-resolution mel and STFT, samples) + what
               lay where patches were hidden from the encoder.
`quantiser`    from the first stage; codebooks start from k-means of an expert's features. Reconstruction + commitment
               + what of each quantised query those before do not predict + adversarial + feature matching.

Each update draws a window, so that one model serves several rates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from auditory_sentences.rng import KeyedRng
from codec.almtokenizer.codec import ALMTokenizer
from codec.almtokenizer.config import ALMTokenizerConfig
from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import AnyLayers, Count, NonNegative, Seconds, Size
from codec.layers.acoustic import apply_weight_norm, folded
from codec.layers.masks import length_mask
from codec.tokens import SAMPLE_RATE
from training.codec.almtokenizer.objectives import (
    ALMObjectives,
    ALMOutput,
    MaskedAutoencoder,
    MaskedRecipe,
    NextQuery,
    NextQueryRecipe,
)
from training.codec.almtokenizer.semantic_prior import set_codebooks
from training.codec.audio_crops import AudioCrops, Decibels, load_batch, random_gains
from training.codec.losses.adversary import AdversaryRecipe, generator_losses
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.losses.discriminator import Discriminator, discriminator_loss
from training.codec.losses.spectral_loss import MultiResolutionSpectralLoss, masked_mean
from training.codec.losses.weighted_sum import weighted_sum
from training.engine import processes
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, OptimiserRecipe, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ALMTokenizerRecipe(Recipe):
    """Training of an ALMTokenizer, one of two stages."""

    READS = ("corpora", "init", "priors.source")

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # "autoencoder", then "quantiser"
    stage: Literal["autoencoder", "quantiser"]
    # its sizes; those of the second stage are the first one's
    tokenizer: ALMTokenizerConfig | None = None
    # run or folder of the first stage, from which the second starts
    init: str = ""
    # codebooks of the second stage; 0: as many as the first one's sizes say
    codebooks: AnyLayers = 0
    # expert encoders from whose clusters codebooks start, one each from the first on; none: k-means of the queries
    priors: tuple[ExpertConfig, ...] = ()
    # micro-batches whose queries set the codebooks
    fit_batches: Count = 100
    # clips in a micro-batch
    batch: Size = 8
    # seconds of a crop, at most
    crop_seconds: Seconds = 5.0
    # dB; crops are scaled by a random gain between this and +3 dB
    quietest_db: Decibels = -12.0
    # what is hidden in the first stage
    masked: MaskedRecipe = MaskedRecipe()
    # the autoregressive loss of the second
    next_query: NextQueryRecipe = NextQueryRecipe()
    # weight of the distance between queries and their codes
    commitment_weight: NonNegative = 1.0
    # weight of the samples' absolute difference beside that of the spectra
    sample_weight: NonNegative = 1.0
    # the discriminator; left out: no adversarial loss
    adversary: AdversaryRecipe | None = None
    # AdamW and its schedule
    optimiser: OptimiserRecipe = OptimiserRecipe(betas=(0.8, 0.99), weight_decay=0.01)

    def __post_init__(self) -> None:
        object.__setattr__(self, "priors", tuple(self.priors))
        if self.stage == "autoencoder":
            if self.init or self.codebooks or self.priors:
                raise UserError("init, codebooks and priors are for stage quantiser; leave them out of autoencoder")
            if self.tokenizer is None:
                object.__setattr__(self, "tokenizer", ALMTokenizerConfig())
        elif self.tokenizer is not None:
            raise UserError("tokenizer: the sizes are those of init; leave them out of stage quantiser")
        elif not self.init:
            raise UserError("init: stage quantiser needs the run of stage autoencoder")


def run(recipe: ALMTokenizerRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the tokenizer, which `load_tokenizer` reads.

    That of the first stage has no codes yet: it loads, and refuses to encode.
    """
    with Run(recipe, resume) as run:
        train, held_out = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        tokenizer = untrained(recipe)
        if recipe.stage == "quantiser" and run.checkpoint is None:
            start_codebooks(recipe, tokenizer, train)
        model = with_objectives(recipe, tokenizer)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state("model"))
        engines, adversary = {"model": engine}, recipe.adversary
        if adversary is not None:
            engines["discriminator"] = discriminator = Engine(
                Discriminator(adversary.fft_sizes, adversary.channels),
                adversary.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state("discriminator"),
            )  # fmt: skip
        spectral = MultiResolutionSpectralLoss(SAMPLE_RATE).to(engine.device)
        usage = CodebookUsage(tokenizer.config.codes, {"codes": range(tokenizer.config.codebooks)})
        weights = loss_weights(recipe)
        model.train()

        for step in run.steps():
            adversarial_active = adversary is not None and step >= adversary.start_step
            window = drawn_window(recipe.seed, step, tokenizer.config)
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                names = [crop.clip.id for crop in crops]
                waveforms, lengths = (x.to(engine.device) for x in load_batch(crops))
                waveforms = filled(waveforms * random_gains(len(crops), recipe.quietest_db).to(engine.device),
                                   tokenizer, window)  # fmt: skip
                made = engine(waveforms, lengths, window)
                losses = made.losses | reconstruction(spectral, made, waveforms, lengths, recipe.sample_weight)
                if adversarial_active:
                    losses |= generator_losses(discriminator, waveforms, made.waveforms)
                loss = weighted_sum(losses, weights)
                engine.backward(loss, names=names)
                if adversarial_active:
                    real, fake = discriminator(waveforms), discriminator(made.waveforms.detach())
                    losses["discriminator"] = discriminator_loss(real, fake)
                    discriminator.backward(losses["discriminator"], names=names)
                engine.record(loss=loss, window=window, **losses)
                if made.ids is not None:
                    usage.count(made.ids)
                run.metric_logger.count(audio_seconds=float(lengths.sum()) / SAMPLE_RATE)
            engine.step()
            if adversarial_active:
                discriminator.step()
            if run.log_due(step):
                used = usage.report() if recipe.stage == "quantiser" else {}
                run.metric_logger.write(step, engine.metrics() | used)
            if run.validate_due(step):
                with engine.evaluating():
                    losses = validate(engine, tokenizer, spectral, held_out, recipe.sample_weight)
                run.metric_logger.write(step, losses)
            if run.save_due(step):
                run.save(step, engines, lambda folder, state: write(tokenizer, folder, state), facts)
    return run.model


def untrained(recipe: ALMTokenizerRecipe) -> ALMTokenizer:
    """The tokenizer that a run starts with, in eval mode: new, or with the first stage's weights and no codes."""
    if recipe.tokenizer is not None:
        return ALMTokenizer(recipe.tokenizer).eval()
    first = ALMTokenizer.from_pretrained(resolve_model(recipe.init))
    tokenizer = ALMTokenizer(replace(first.config, codebooks=recipe.codebooks or first.config.codebooks))
    weights = {name: tensor for name, tensor in first.state_dict().items() if "quantiser.layers" not in name}
    tokenizer.load_state_dict(weights, strict=False)
    return tokenizer.eval()


def with_objectives(recipe: ALMTokenizerRecipe, tokenizer: ALMTokenizer) -> ALMObjectives:
    """The tokenizer with what its stage trains beside it."""
    config, masked, next_query = tokenizer.config, None, None
    if config.patches.front_end == "waveform":
        apply_weight_norm(tokenizer.patchify)
        apply_weight_norm(tokenizer.unpatchify)
    if recipe.stage == "autoencoder" and recipe.masked.share and recipe.masked.weight:
        masked = MaskedAutoencoder(recipe.masked, config.patches.samples, config.dim)
    if recipe.stage == "quantiser" and recipe.next_query.weight:
        next_query = NextQuery(recipe.next_query, config.dim)
    return ALMObjectives(tokenizer, recipe.stage == "quantiser", masked, next_query)


def start_codebooks(recipe: ALMTokenizerRecipe, tokenizer: ALMTokenizer, crops: AudioCrops) -> None:
    """Set the codebooks before the first update, those of all processes to the first one's. Collective."""
    device = processes.device()

    def batches() -> Iterator[tuple[Tensor, Tensor, int]]:
        for index in range(recipe.fit_batches):
            waveforms, lengths = (x.to(device) for x in load_batch(crops.batch(index)))
            window = drawn_window(recipe.seed, -1 - index, tokenizer.config)
            yield filled(waveforms, tokenizer, window), lengths, window

    experts = [load_expert(prior).to(device) for prior in recipe.priors]
    set_codebooks(tokenizer.to(device), experts, batches())
    own = {name: tensor.cpu() for name, tensor in tokenizer.quantiser.state_dict().items()}
    tokenizer.quantiser.load_state_dict(processes.gather(own)[0])


def loss_weights(recipe: ALMTokenizerRecipe) -> dict[str, float]:
    """Weight of each loss; those that a stage or an update has not are not asked for."""
    weights = {
        "reconstruction": 1.0,
        "masked": recipe.masked.weight,
        "next_query": recipe.next_query.weight,
        "commitment": recipe.commitment_weight,
    }
    if recipe.adversary is not None:
        weights |= {"adversarial": recipe.adversary.weight, "features": recipe.adversary.feature_weight}
    return weights


def drawn_window(seed: int, step: int, config: ALMTokenizerConfig) -> int:
    """Patches of a query in an update."""
    return KeyedRng("window", seed, step).randint(config.least_window, config.most_window)


def filled(waveforms: Tensor, tokenizer: ALMTokenizer, window: int) -> Tensor:
    """(B, n) with silence up to whole frames."""
    return F.pad(waveforms, (0, -waveforms.shape[1] % (tokenizer.config.patches.samples * window)))


def reconstruction(
    spectral: MultiResolutionSpectralLoss, made: ALMOutput, waveforms: Tensor, lengths: Tensor, sample_weight: float
) -> dict[str, Tensor]:
    """The loss of the sound, under "reconstruction", and its unweighted terms; scalars. Waveforms (B, n)."""
    kept = length_mask(lengths, waveforms.shape[1])  # (B, n): what is decoded beyond a clip's end is nobody's
    loss, terms = spectral(made.waveforms * kept, waveforms * kept, lengths)
    samples = masked_mean((made.waveforms - waveforms).abs()[:, None], lengths)
    return {"reconstruction": loss + sample_weight * samples, "samples": samples, **terms}


def validate(
    engine: Engine,
    tokenizer: ALMTokenizer,
    spectral: MultiResolutionSpectralLoss,
    crops: AudioCrops,
    sample_weight: float,
    batches: int = 8,
) -> dict[str, float]:
    """Losses on the same few held-out batches every time, at the tokenizer's own window, with nothing hidden."""
    totals: dict[str, float] = {}
    window = tokenizer.config.window
    for index in range(batches):
        waveforms, lengths = (x.to(engine.device) for x in load_batch(crops.batch(index)))
        waveforms = filled(waveforms, tokenizer, window)
        made = engine(waveforms, lengths, window)
        losses = made.losses | reconstruction(spectral, made, waveforms, lengths, sample_weight)
        losses["loss"] = losses.pop("reconstruction")
        losses.pop("commitment", None)  # none outside training
        for name, value in losses.items():
            totals[f"val/{name}"] = totals.get(f"val/{name}", 0.0) + float(value) / batches
    return totals


def write(tokenizer: ALMTokenizer, folder: Path, state: Mapping[str, Tensor]) -> None:
    """Save what is trained so far, with whole weights in place of their directions and lengths."""
    own = "tokenizer."
    plain = ALMTokenizer(tokenizer.config)
    weights = {name.removeprefix(own): tensor for name, tensor in state.items() if name.startswith(own)}
    plain.load_state_dict(folded(weights))
    plain.eval().save_pretrained(folder)
