"""Codec stage 3, reconstruction: the structural branch and the flow decoder (ReasoningCodec §2.5; UniAudio 2.0 §3).

Expert encoders, descriptive branch and scalar autoencoder are frozen and in eval mode: no buffer of theirs changes.
Loss = flow + 0.1 phone features + 0.5 commitment. Half of the clips are given a prefix of their latents as context; a
tenth of them lose their conditioning, for classifier-free guidance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from auditory_sentences.corpora.clip import KINDS
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Guidance, Layers, NonNegative, Seconds, Share, Size
from codec.io.strict import nearest
from codec.io.terminal import shown
from codec.layers.initialisation import initialise_from_data
from codec.layers.masks import length_mask
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import FlowConfig, ReasoningCodecConfig, StructuralConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.reasoning.load import load_reasoning_codec
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.reasoning.structural_branch import LEVELS
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, check_corpus_shares
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.codec.losses.codebook_usage import CodebookUsage
from training.codec.losses.mel_metric import latent_frames, mel_metric
from training.codec.losses.weighted_sum import weighted_sum
from training.codec.phone_units import PHONE_PARTS, before_codebook, set_phone_units
from training.engine.attention import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, Recipe, Weights, check_weights
from training.resume import Resume
from training.run import Run

CODEBOOKS = sum(LEVELS.values())
GROUPS = {"phone": range(0, 1), "structure": range(1, 2), "acoustic": range(2, 8)}  # columns of the structural ids


@dataclass(frozen=True, kw_only=True)
class ReconstructionRecipe(Recipe):
    """Reconstruction of crops of recordings."""

    # folders or descriptions of corpora; trained on their train clips, validated on their dev clips
    corpora: Corpora
    # kind of clip (speech, sound, music, mixture) -> its share of the crops; empty: every clip alike
    kinds: Weights = field(default_factory=dict)
    # share of each of corpora, in their order, in the crops of a kind; empty: every clip alike
    corpus_shares: tuple[NonNegative, ...] = ()
    # share of the crops that are heard as in a recording of 8 or 11 kHz, of which a codec else makes noise
    narrow_band: Share = 0.0
    # clips in a micro-batch
    batch: Size = 16
    # seconds of a crop, at most
    crop_seconds: Seconds = 30.0
    # share of the flow loss that counts an error by how far it is heard, on a mel scale; the rest, and published: every
    # direction of the latents alike
    mel_share: Share = 0.0
    # weight of the loss of the phone encoder's features beside the flow loss
    phone_weight: NonNegative = 0.1
    # weight of the commitment loss of the structural branch beside the flow loss
    commitment_weight: NonNegative = 0.5
    # probability that a clip is given its first frames as context
    prefix_chance: Share = 0.5
    # share of its frames that is given, at most
    prefix_share: Share = 0.5
    # probability that a clip loses its conditioning (classifier-free guidance)
    unconditional_chance: Share = 0.1
    # share of the clips of which some of the last codebooks, one to seven, are left out, so that the first ones come to
    # carry what matters most; published: all are always there
    codebook_drop: Share = 0.0
    # whether phone codes are units of the phone expert's frames, found by k-means before training; nothing before the
    # codebook learns then (training/codec/phone_units.py). Published: the phone branch learns as the others do
    phone_units: bool = False
    # whether features from the frozen parts are kept in memory once they are computed, in 16 bits; long clips are then
    # always cut at the same places
    cache_features: bool = False

    def crops(self) -> tuple[AudioCrops, AudioCrops]:
        """Of the corpora's train clips, and of their dev clips."""
        return AudioCrops.train_and_dev(
            self.corpora,
            self.batch,
            self.crop_seconds,
            self.seed,
            tiled=self.cache_features,
            kinds=self.kinds,
            shares=self.corpus_shares,
            narrow_band=self.narrow_band,
        )


@dataclass(frozen=True, kw_only=True)
class StructuralRecipe(ReconstructionRecipe):
    """The reconstruction stage, which makes the codec of its parts."""

    READS = ("corpora", "init", "scalar", "descriptive", "phone_expert.source")

    # folder of a codec whose structural branch and flow decoder go on learning; empty: new ones
    init: str = ""
    # folder of the trained scalar autoencoder, or of a codec, whose own is taken; empty: that of init
    scalar: str = ""
    # folder of the trained descriptive branch with its two experts, or of a codec, whose own are taken; empty: those of
    # init
    descriptive: str = ""
    # expert encoder of the role phone; left out: that of init, or spectral features
    phone_expert: ExpertConfig | None = None
    # sizes of the structural branch; left out: those of init, or the published ones
    structural: StructuralConfig | None = None
    # sizes of the flow decoder; left out: those of init, or the published ones
    flow: FlowConfig | None = None
    # solver steps of the finished codec, where a call names none; left out: those of init, or 10
    decode_steps: Layers | None = None
    # classifier-free guidance of the finished codec, where a call names none; 1: none; left out: that of init, or 1.5
    decode_guidance: Guidance | None = None

    def __post_init__(self) -> None:
        check_shares(self)
        if not self.init and not (self.scalar and self.descriptive):
            raise UserError("name the folders of scalar and descriptive, or with init that of a codec that has both")
        if self.init and self.phone_expert is not None and not self.phone_units:
            raise UserError(
                "phone_expert: init has one, to which its phone branch belongs; leave phone_expert out, or set "
                "phone_units, with which the branch begins anew"
            )
        if not self.init:
            check_prefixes(self, self.flow or FlowConfig())


def check_shares(recipe: ReconstructionRecipe) -> None:
    """Raise UserError where shares are given to something that is no kind of clip, to no corpus, or to nothing."""
    unknown = [name for name in recipe.kinds if name not in KINDS]
    if unknown:
        close = nearest(unknown[0], KINDS)
        raise UserError(f"kinds: {shown(unknown[0])} is no kind of clip; there are {', '.join(KINDS)}{close}")
    if recipe.kinds:
        check_weights("kinds", recipe.kinds)
    check_corpus_shares(recipe.corpora, recipe.corpus_shares)


def check_prefixes(recipe: ReconstructionRecipe, flow: FlowConfig) -> None:
    """Compare the context of training with that of decoding.

    Raises:
        UserError: a window of decoding would be given more frames than any clip of training.
    """
    longest = int(recipe.prefix_share * recipe.crop_seconds * 25) if recipe.prefix_chance else 0
    if longest < flow.overlap_frames:
        raise UserError(
            f"flow.overlap_frames: decoding would give a window {flow.overlap_frames} frames of context, training at "
            f"most {longest}; raise prefix_share or crop_seconds (and prefix_chance above 0), or lower overlap_frames"
        )


@dataclass
class ReconstructionLosses:
    """Losses of a micro-batch of B clips."""

    # name -> scalar: flow, phone and commitment
    losses: dict[str, Tensor]
    # (B, T12, 8) structural ids, -1 beyond each clip
    ids: Tensor

    def total(self, recipe: ReconstructionRecipe) -> Tensor:
        """Their weighted sum."""
        weights = {"flow": 1.0, "phone": recipe.phone_weight, "commitment": recipe.commitment_weight}
        return weighted_sum(self.losses, weights)


class Reconstruction(nn.Module):
    """The trained half of the codec: structural branch and flow decoder, under their names in ReasoningCodec."""

    metric: Tensor | None = None  # (latent_dim, latent_dim) of the flow's errors, see `flow_metric`; None: all alike

    def __init__(self, codec: ReasoningCodec, phone_units: bool = False) -> None:
        super().__init__()
        self.structural, self.flow = codec.structural, codec.flow
        if phone_units:
            before_codebook(self.structural).requires_grad_(False)
        self.structural.no_condition.requires_grad_(False)  # stands for frames that training never sees

    def forward(
        self, features: FrozenFeatures, prefix_frames: Tensor, conditioned: Tensor, codebooks: Tensor | None = None
    ) -> ReconstructionLosses:
        """Losses of B clips. Under autocast only the flow's matrix products are in 16 bits: codes need their precision.

        Args:
            features: of the clips.
            prefix_frames: (B,) latent frames given as context.
            conditioned: (B,) bool, which clips keep their conditioning.
            codebooks: (B,) how many of its codebooks each clip is rebuilt from; None: all.
        """
        device = features.latents.device
        with torch.autocast(device.type, enabled=False):
            out = self.structural(features.experts, features.descriptive, features.structural_mask, codebooks)
            mu = self.structural.condition(out.quantised)[:, : features.latents.shape[1]]
            phone = self.structural.phone_loss(out.phone, features.experts["phone"], features.structural_mask)
        mask = length_mask(features.latent_frames, features.latents.shape[1])  # (B, T25)
        latents = self.flow.normalise(features.latents)
        t = self.flow.sample_times(len(latents)).to(device)
        in_16_bits = torch.is_autocast_enabled(device.type)
        with plain_attention(device) if in_16_bits else contextlib.nullcontext():
            flow = self.flow.loss(
                latents, mu * conditioned[:, None, None], mask, prefix_frames, t, torch.randn_like(latents), self.metric
            )
        return ReconstructionLosses({"flow": flow, "phone": phone, "commitment": out.commitment}, out.ids)


def run(recipe: StructuralRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the whole codec, which ReasoningCodec.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = recipe.crops()
        facts = {"clips": train.fingerprint}
        run.check(facts)
        codec = codec_to_train(recipe)
        if run.checkpoint is None and not recipe.init:
            measure_latents(codec, train)
            initialise(codec, train)
        if run.checkpoint is None and begins_phones(recipe):
            set_phone_units(codec, train)
        model = Reconstruction(codec, recipe.phone_units)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()  # the trained half gets its mode back below
        model.metric = flow_metric(codec, train, recipe)
        model.train()
        frozen = FeatureExtractor(codec, recipe.cache_features)
        usage = CodebookUsage(codec.config.structural.quantiser.codebook_size, GROUPS)

        for step in run.steps():
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                features = frozen(crops, engine.device)
                out = engine(features, **draw_conditions(features.latent_frames, recipe))
                loss = out.total(recipe)
                engine.backward(loss, names=[crop.clip.id for crop in crops])
                engine.record(loss=loss, **out.losses)
                usage.count(out.ids)
                run.metric_logger.count(audio_seconds=sum(crop.length for crop in crops) / SAMPLE_RATE)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | usage.report())
            if run.validate_due(step):
                with engine.evaluating():
                    flow = held_out_flow(engine, frozen, held_out, recipe, engine.device)
                run.metric_logger.write(step, {"val/flow": flow})
            if run.save_due(step):
                run.save(step, {"model": engine}, codec.save_pretrained, facts)
    return run.model


def draw_conditions(latent_frames: Tensor, recipe: ReconstructionRecipe) -> dict[str, Tensor]:
    """Which clips are given a prefix, how long, and which keep their conditioning: (B,) each, at random."""
    share, given, kept = torch.rand(3, len(latent_frames)).to(latent_frames.device)
    share = share * recipe.prefix_share * (given < recipe.prefix_chance)
    drawn = {"prefix_frames": (share * latent_frames).long(), "conditioned": kept >= recipe.unconditional_chance}
    if recipe.codebook_drop:
        dropped, first = torch.rand(2, len(latent_frames)).to(latent_frames.device)
        some = (1 + first * (CODEBOOKS - 1)).long()  # 1 to 7
        drawn["codebooks"] = torch.where(dropped < recipe.codebook_drop, some, CODEBOOKS)
    return drawn


def held_out_flow(
    rebuild: Callable[..., ReconstructionLosses],
    frozen: FeatureExtractor,
    crops: AudioCrops,
    recipe: ReconstructionRecipe,
    device: torch.device,
) -> float:
    """Flow loss on the same few batches and random numbers every time. rebuild: as Reconstruction.forward."""
    losses = []
    with torch.random.fork_rng():
        for index in range(8):
            torch.manual_seed(index)
            features = frozen(crops.batch(index), device)
            losses.append(rebuild(features, **draw_conditions(features.latent_frames, recipe)).losses["flow"])
    return float(torch.stack(losses).mean())


def begins_phones(recipe: StructuralRecipe) -> bool:
    """Whether phone units are found for this run, rather than those of init kept."""
    return recipe.phone_units and not (recipe.init and recipe.phone_expert is None)


def codec_to_train(recipe: StructuralRecipe) -> ReasoningCodec:
    """The codec with its frozen parts in place; structural branch and flow decoder are those of init, or new.

    With another phone expert than that of init the branch of phones is new.

    Raises:
        UserError: those of init do not fit the sizes that the recipe states, or the parts that it names.
    """
    start = load_reasoning_codec(resolve_model(recipe.init)) if recipe.init else None
    folder = resolve_model(recipe.scalar or recipe.init)
    is_codec = ReasoningCodec.is_in(folder)
    scalar = ReasoningCodec.from_pretrained(folder).scalar if is_codec else ScalarAutoencoder.from_pretrained(folder)
    descriptive = DescriptiveEncoder.from_pretrained(resolve_model(recipe.descriptive or recipe.init))
    had = ReasoningCodecConfig() if start is None else start.config
    phone = next(expert for expert in had.experts if expert.role == "phone")
    config = ReasoningCodecConfig(
        experts=(*descriptive.config.experts, recipe.phone_expert or phone),
        descriptive=descriptive.branch.config,
        structural=recipe.structural or had.structural,
        flow=recipe.flow or had.flow,
        scalar=scalar.config,
        decode_steps=recipe.decode_steps or had.decode_steps,
        decode_guidance=recipe.decode_guidance or had.decode_guidance,
    )
    check_prefixes(recipe, config.flow)
    codec = ReasoningCodec(config)
    codec.scalar.load_state_dict(scalar.state_dict())
    codec.descriptive.load_state_dict(descriptive.branch.state_dict())
    for role, expert in descriptive.experts.items():  # a codec may hold their weights itself, and name no source
        codec.experts[role].load_state_dict(expert.state_dict())
    if start is not None:
        if recipe.phone_expert is None:
            codec.experts["phone"].load_state_dict(start.experts["phone"].state_dict())
        try:
            own = start.structural.state_dict()
            if begins_phones(recipe):
                new = {
                    name: value for name, value in codec.structural.state_dict().items() if name.startswith(PHONE_PARTS)
                }
                own = {name: value for name, value in own.items() if not name.startswith(PHONE_PARTS)} | new
            codec.structural.load_state_dict(own)
            codec.flow.load_state_dict(start.flow.state_dict())
        except RuntimeError as error:
            raise UserError(
                f"init: {recipe.init} has other sizes than this recipe states, or than the parts that it names "
                f"({' '.join(str(error).split())[:200]}); leave structural, flow and phone_expert out"
            ) from error
    for part in (codec.descriptive, codec.scalar, codec.experts):
        part.requires_grad_(False)
    return codec.eval()


def initialise(codec: ReasoningCodec, crops: AudioCrops) -> None:
    """Set the scales of what lies between features and flow from the first batch, see `initialise_from_data`.

    At PyTorch's scale every projection shrinks what varies in its input, and the noise drowns the conditioning.
    """
    features = FeatureExtractor(codec)(crops.batch(0), codec.structural.no_condition.device)
    branch, estimator = codec.structural, codec.flow.estimator

    def forward() -> None:
        modulated = branch.modulate(branch.fuse(features.experts), features.descriptive)
        passed = [
            quantiser.project_out(quantiser.project_in(modulated[n])) for n, quantiser in branch.quantiser.items()
        ]
        mu = branch.condition(sum(passed))[:, : features.latents.shape[1]]
        latents = codec.flow.normalise(features.latents)
        estimator.input(torch.cat([torch.randn_like(latents), torch.zeros_like(latents), mu], dim=-1))

    initialise_from_data(nn.ModuleList([branch, estimator.input]), forward)


def measure_latents(codec: ReasoningCodec, crops: AudioCrops) -> None:
    """Set the mean and spread of the latents in which the flow runs, from the first batches."""
    latents = torch.cat([latents for latents, _ in latent_frames(codec.scalar, crops)])  # (frames, latent_dim)
    codec.flow.latent_mean.copy_(latents.mean(0))
    codec.flow.latent_spread.copy_(latents.std(0).clamp(min=1e-3))


def flow_metric(codec: ReasoningCodec, crops: AudioCrops, recipe: ReconstructionRecipe) -> Tensor | None:
    """The metric of a recipe's flow loss, from the first batches.

    The same whenever a run is resumed, once the codec has its trained weights: the scale of the latents is among them.
    """
    if not recipe.mel_share:
        return None
    latents, spectra = map(torch.cat, zip(*latent_frames(codec.scalar, crops), strict=True))
    return mel_metric(codec.flow.normalise(latents), spectra, recipe.mel_share)
