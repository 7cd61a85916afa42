"""Codec stage 3, reconstruction: the structural branch and the flow decoder (ReasoningCodec §2.5; UniAudio 2.0 §3).

Expert encoders, descriptive branch and scalar autoencoder are frozen and in eval mode: no buffer of theirs changes.
Loss = flow + 0.1 phone features + 0.5 commitment. Half of the clips are given a prefix of their latents as context, a
tenth of them no conditioning, so that guidance has something to lean away from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from codec.experts.base import ExpertConfig
from codec.io.errors import UserError
from codec.io.numbers import Guidance, Layers, Name, NonNegative, Seconds, Share, Size
from codec.layers.masks import length_mask
from codec.reasoning.codec import ReasoningCodec, ReasoningCodecConfig
from codec.reasoning.config import FlowConfig, StructuralConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, load_batch, train_and_held_out
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.codec.losses.codebook_usage import CodebookUsage
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run

GROUPS = {"phone": range(0, 1), "structure": range(1, 2), "acoustic": range(2, 8)}  # columns of the structural ids


@dataclass(frozen=True, kw_only=True)
class ReconstructionRecipe(Recipe):
    """What reconstruction learns from and how.

    corpora: folders of corpora
    batch: clips in a micro-batch; crop_seconds: longer clips give a random stretch of that length
    phone_weight, commitment_weight: of the losses beside the flow loss
    prefix_chance: of a clip being given its first frames; prefix_share: at most this share of its frames
    unconditional_chance: of a clip losing its conditioning
    cache_features: whether to keep in memory what the frozen parts made of a clip (see FeatureExtractor)
    """

    corpora: Corpora
    batch: Size = 16
    crop_seconds: Seconds = 30.0
    phone_weight: NonNegative = 0.1
    commitment_weight: NonNegative = 0.5
    prefix_chance: Share = 0.5
    prefix_share: Share = 0.5
    unconditional_chance: Share = 0.1
    cache_features: bool = False


@dataclass(frozen=True, kw_only=True)
class StructuralRecipe(ReconstructionRecipe):
    """A reconstruction stage that makes the codec of its parts.

    scalar: folder of the trained scalar autoencoder, or of a codec: its own
    descriptive: folder of the trained descriptive branch, or of a codec: its own; it brings two of the experts
    phone_expert: the third one
    decode_steps, decode_guidance: what the codec decodes with where a call names none
    """

    READS = ("corpora", "scalar", "descriptive", "phone_expert.source")

    scalar: Name
    descriptive: Name
    phone_expert: ExpertConfig = ExpertConfig("phone")
    structural: StructuralConfig = field(default_factory=StructuralConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    decode_steps: Layers = 10
    decode_guidance: Guidance = 1.5

    def __post_init__(self) -> None:
        check_prefixes(self, self.flow)


def check_prefixes(recipe: ReconstructionRecipe, flow: FlowConfig) -> None:
    """Raise UserError where a window of decoding would be given more frames than any clip of training."""
    longest = int(recipe.prefix_share * recipe.crop_seconds * 25) if recipe.prefix_chance else 0
    if longest < flow.overlap_frames:
        raise UserError(
            f"flow.overlap_frames: decoding would give a window {flow.overlap_frames} frames of context, training at "
            f"most {longest}; raise prefix_share or crop_seconds (and prefix_chance above 0), or lower overlap_frames"
        )


@dataclass
class ReconstructionLosses:
    flow: Tensor
    phone: Tensor
    commitment: Tensor
    ids: Tensor  # (B, T12, 8), -1 beyond each clip

    def total(self, recipe: ReconstructionRecipe) -> Tensor:
        """The weighted sum that is learned from."""
        return self.flow + recipe.phone_weight * self.phone + recipe.commitment_weight * self.commitment


class Reconstruction(nn.Module):
    """The trained half of the codec: structural branch and flow decoder, under their names in ReasoningCodec."""

    def __init__(self, codec: ReasoningCodec) -> None:
        super().__init__()
        self.structural, self.flow = codec.structural, codec.flow
        self.structural.no_condition.requires_grad_(False)  # it stands for frames that training has no use for

    def forward(self, heard: FrozenFeatures, prefix_frames: Tensor, conditioned: Tensor) -> ReconstructionLosses:
        """heard: the batch; prefix_frames (B,) latents given as context; conditioned (B,) bool.

        Under autocast only the flow's matrix products are in 16 bits: codes need their precision.
        """
        device = heard.latents.device
        with torch.autocast(device.type, enabled=False):
            out = self.structural(heard.features, heard.descriptive, heard.structural_mask)
            mu = self.structural.condition(out.quantised)[:, : heard.latents.shape[1]]
            phone = self.structural.phone_loss(out.phone, heard.features["phone"], heard.structural_mask)
        mask = length_mask(heard.latent_frames, heard.latents.shape[1])  # (B, T25)
        latents = self.flow.normalise(heard.latents)
        t = self.flow.sample_times(len(latents)).to(device)
        # On the CPU fused attention is slow in 16 bits.
        plain = device.type == "cpu" and torch.is_autocast_enabled("cpu")
        with sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext():
            flow = self.flow.loss(
                latents, mu * conditioned[:, None, None], mask, prefix_frames, t, torch.randn_like(latents)
            )
        return ReconstructionLosses(flow, phone, out.commitment, out.ids)


def run(recipe: StructuralRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the whole codec, which ReasoningCodec.from_pretrained reads."""
    with Run(recipe, resume) as run:
        train, held_out = train_and_held_out(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        facts = {"clips": train.fingerprint}
        run.check(facts)
        codec = untrained_codec(recipe)
        if run.checkpoint is None:
            measure_latents(codec, train)
        model = Reconstruction(codec)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()  # what is frozen stays so; the trained half gets its mode back below
        model.train()
        frozen = FeatureExtractor(codec, recipe.cache_features)
        usage = CodebookUsage(recipe.structural.quantiser.codebook_size, GROUPS)

        for step in run.steps():
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                heard = frozen(crops, engine.device)
                out = engine(heard, **draw_conditions(heard.latent_frames, recipe))
                loss = out.total(recipe)
                engine.backward(loss, names=[crop.clip.id for crop in crops])
                engine.record(loss=loss, flow=out.flow, phone=out.phone, commitment=out.commitment)
                usage.count(out.ids)
                run.metric_logger.count(audio_seconds=sum(crop.length for crop in crops) / SAMPLE_RATE)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics() | usage.report())
            if run.validate_due(step):
                with engine.evaluating():
                    run.metric_logger.write(
                        step, {"held_out_flow": held_out_flow(engine, frozen, held_out, recipe, engine.device)}
                    )
            if run.save_due(step):
                run.save(step, {"model": engine}, codec.save_pretrained, facts)
    return run.model


def draw_conditions(latent_frames: Tensor, recipe: ReconstructionRecipe) -> dict[str, Tensor]:
    """Which clips are given a prefix, how long, and which keep their conditioning: (B,) each, from the seeded draws."""
    share, given, kept = torch.rand(3, len(latent_frames)).to(latent_frames.device)
    share = share * recipe.prefix_share * (given < recipe.prefix_chance)
    return {"prefix_frames": (share * latent_frames).long(), "conditioned": kept >= recipe.unconditional_chance}


def held_out_flow(
    rebuild: Callable[..., ReconstructionLosses],
    frozen: FeatureExtractor,
    crops: AudioCrops,
    recipe: ReconstructionRecipe,
    device: torch.device,
) -> float:
    """Flow loss on the same few batches and draws every time. rebuild: what Reconstruction.forward is."""
    losses = []
    with torch.random.fork_rng():
        for index in range(8):
            torch.manual_seed(index)
            heard = frozen(crops.batch(index), device)
            losses.append(rebuild(heard, **draw_conditions(heard.latent_frames, recipe)).flow)
    return float(torch.stack(losses).mean())


def untrained_codec(recipe: StructuralRecipe) -> ReasoningCodec:
    """The codec with its trained parts in place, the others fresh."""
    folder = resolve_model(recipe.scalar)
    whole = ReasoningCodec.is_in(folder)
    scalar = ReasoningCodec.from_pretrained(folder).scalar if whole else ScalarAutoencoder.from_pretrained(folder)
    described = DescriptiveEncoder.from_pretrained(resolve_model(recipe.descriptive))
    config = ReasoningCodecConfig(
        experts=(*described.expert_configs, recipe.phone_expert),
        descriptive=described.branch.config,
        structural=recipe.structural,
        flow=recipe.flow,
        scalar=scalar.config,
        decode_steps=recipe.decode_steps,
        decode_guidance=recipe.decode_guidance,
    )
    codec = ReasoningCodec(config)
    codec.scalar.load_state_dict(scalar.state_dict())
    codec.descriptive.load_state_dict(described.branch.state_dict())
    for part in (codec.descriptive, codec.scalar, codec.experts):
        part.requires_grad_(False)
    return codec.eval()


@torch.no_grad()
def measure_latents(codec: ReasoningCodec, crops: AudioCrops, batches: int = 16) -> None:
    """Set the mean and spread of the latents in which the flow runs, from the first batches."""
    seen = []
    for index in range(batches):
        waveforms, lengths = load_batch(crops.batch(index))
        latents = codec.scalar.encode(waveforms, lengths).transpose(1, 2)
        frames = -(-lengths // codec.config.scalar.samples_per_frame)
        seen.append(latents[length_mask(frames, latents.shape[1])])
    seen = torch.cat(seen)  # (frames, latent_dim)
    codec.flow.latent_mean.copy_(seen.mean(0))
    codec.flow.latent_spread.copy_(seen.std(0).clamp(min=1e-3))
