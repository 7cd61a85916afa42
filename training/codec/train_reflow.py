"""Few-step decoding: the flow decoder is distilled by reflow (Liu et al. 2022, arXiv 2209.03003, §2.2).

The frozen teacher solves its own equation in many steps, with guidance, from noise to latents under the condition of a
real clip. The student, which starts as a copy, learns the straight path between the two ends of each such pair. A
straight path needs few steps, and guidance, which is inside the pairs, needs no second evaluation: 2 steps of the
student are 2 evaluations, 10 guided steps of the teacher 20. Pairs are made as they are needed; all else is frozen.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.numbers import Guidance, Layers, Name, Seconds, Share, Size
from codec.layers.masks import length_mask
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.flow_decoder import FlowDecoder
from codec.reasoning.load import load_reasoning_codec
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.engine.attention import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.engine.precision import AUTOCAST
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ReflowRecipe(Recipe):
    """Distillation of a codec's flow decoder to few steps."""

    READS = ("corpora", "init")

    # folders or descriptions of corpora, for conditions and prefixes; their latents are no targets
    corpora: Corpora
    # folder of the codec whose flow decoder is distilled
    init: Name
    # clips in a micro-batch
    batch: Size = 16
    # seconds of a crop, at most; best the length of a decoding window
    crop_seconds: Seconds = 20.0
    # solver steps of the teacher for each pair
    teacher_steps: Layers = 25
    # classifier-free guidance of the teacher, 1: none
    teacher_guidance: Guidance = 1.5
    # solver of the teacher
    teacher_solver: Literal["euler", "midpoint"] = "euler"
    # steps of the distilled decoder, its default when it decodes
    student_steps: Layers = 2
    # where on the path the student is trained: uniform, for any number of steps; grid, for student_steps Euler steps
    times: Literal["uniform", "grid"] = "uniform"
    # probability that a micro-batch is given its first frames as context
    prefix_chance: Share = 0.5
    # share of its shortest clip that is given, at most
    prefix_share: Share = 0.5

    def __post_init__(self) -> None:
        if self.student_steps >= self.teacher_steps:
            raise UserError(
                f"student_steps must be below teacher_steps, not {self.student_steps} and {self.teacher_steps}"
            )
        if self.engine.precision == "bf16" or self.engine.zero_stage == 3:
            raise UserError("the student is solved whole and in fp32: use precision fp32 or mixed, zero_stage 0 to 2")


@dataclass
class Pairs:
    """Both ends of the paths of a micro-batch, and what they depend on."""

    # (B, T25, latent_dim): where the paths start
    noise: Tensor
    # (B, T25, latent_dim), normalised: where they end
    latents: Tensor
    # (B, T25, dim): conditioning
    mu: Tensor
    # (B, T25) bool: the clips' frames
    mask: Tensor
    # (B, T25, latent_dim), normalised: the clips' own latents, of which the first `prefix_frames` are given
    context: Tensor
    # frames that are given
    prefix_frames: int

    def solved_by(self, flow: FlowDecoder, steps: int, guidance: float = 1.0, solver: str = "euler") -> Tensor:
        """Solution of `flow` from the same noise under the same condition, (B, T25, latent_dim)."""
        return flow.solve(self.noise, self.mu, self.mask, self.context, self.prefix_frames, steps, guidance, solver)

    def distance(self, latents: Tensor) -> Tensor:
        """Root mean squared distance of latents from these, over the frames that are generated (a scalar)."""
        generated = self.mask.clone()
        generated[:, : self.prefix_frames] = False
        return (latents - self.latents)[generated].square().mean().sqrt()


class Teacher:
    """The codec as it was: makes the pairs, always in eval mode and without gradients."""

    def __init__(self, codec: ReasoningCodec, recipe: ReflowRecipe) -> None:
        self.codec, self.recipe = codec, recipe
        self.flow = copy.deepcopy(codec.flow).requires_grad_(False)  # the codec's own becomes the student

    @torch.no_grad()
    def pairs(self, features: FrozenFeatures) -> Pairs:
        """Pairs of a micro-batch: noise, and a prefix for all its clips or for none, from the seeded generator."""
        recipe, device = self.recipe, features.latents.device
        structural = self.codec.structural
        quantised = structural(features.experts, features.descriptive, features.structural_mask).quantised
        mu = structural.condition(quantised)[:, : features.latents.shape[1]]
        context = self.flow.normalise(features.latents)
        given, share = torch.rand(2).tolist()
        share = share * recipe.prefix_share * (given < recipe.prefix_chance)
        prefix = int(share * int(features.latent_frames.min()))
        mask = length_mask(features.latent_frames, context.shape[1])
        pairs = Pairs(torch.randn_like(context), context, mu, mask, context, prefix)
        dtype = AUTOCAST.get(recipe.engine.precision)
        with torch.autocast(device.type, dtype, enabled=dtype is not None), plain_attention(device):
            pairs.latents = pairs.solved_by(
                self.flow, recipe.teacher_steps, recipe.teacher_guidance, recipe.teacher_solver
            )
        return pairs


class Student(nn.Module):
    """The flow decoder under its name in ReasoningCodec."""

    def __init__(self, flow: FlowDecoder, recipe: ReflowRecipe) -> None:
        super().__init__()
        self.flow, self.recipe = flow, recipe

    def forward(self, pairs: Pairs) -> Tensor:
        """Flow loss on the straight path from a pair's noise to its latents (a scalar)."""
        batch, device = len(pairs.noise), pairs.noise.device
        if self.recipe.times == "grid":
            t = torch.randint(self.recipe.student_steps, (batch,)) / self.recipe.student_steps
        else:
            t = torch.rand(batch)
        prefix = torch.full((batch,), pairs.prefix_frames, device=device)
        with plain_attention(device):
            return self.flow.loss(pairs.latents, pairs.mu, pairs.mask, prefix, t.to(device), pairs.noise)


def run(recipe: ReflowRecipe, resume: Resume = False) -> Path:
    """Train, and return the folder of the whole codec, which decodes in `student_steps` steps without guidance."""
    with Run(recipe, resume) as run:
        train, held_out = AudioCrops.train_and_dev(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        codec = trained_codec(recipe).set_decoder_dtype(torch.float32)  # paths are solved in the recipe's precision
        facts = {"clips": train.fingerprint, "init": codec.fingerprint}
        run.check(facts)
        codec.config = replace(codec.config, decode_steps=recipe.student_steps, decode_guidance=1.0, distilled=True)
        teacher = Teacher(codec, recipe)  # before the engine loads a checkpoint
        model = Student(codec.flow, recipe)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()
        teacher.flow.to(engine.device)
        frozen = FeatureExtractor(codec)

        for step in run.steps():
            for index in engine.micro_batches(step):
                crops = train.batch(index)
                loss = engine(teacher.pairs(frozen(crops, engine.device)))
                engine.backward(loss, names=[crop.clip.id for crop in crops])
                engine.record(loss=loss)
                run.metric_logger.count(audio_seconds=sum(crop.length for crop in crops) / SAMPLE_RATE)
            engine.step()
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    distances = held_out_distances(teacher, codec.flow, frozen, held_out, engine.device)
                run.metric_logger.write(step, distances)
            if run.save_due(step):
                run.save(step, {"model": engine}, codec.save_pretrained, facts)
    return run.model


def held_out_distances(
    teacher: Teacher, student: FlowDecoder, frozen: FeatureExtractor, crops: AudioCrops, device: torch.device
) -> dict[str, float]:
    """Distance from the teacher's many-step latents to the student's in few steps, and to the teacher's own in as few.

    Root mean squares in normalised latents, over the same few batches and random numbers every time.
    """
    steps, guidance = teacher.recipe.student_steps, teacher.recipe.teacher_guidance
    student_distances, teacher_distances = [], []
    with torch.random.fork_rng():
        for index in range(4):
            torch.manual_seed(index)
            pairs = teacher.pairs(frozen(crops.batch(index), device))
            student_distances.append(pairs.distance(pairs.solved_by(student, steps)))
            teacher_distances.append(pairs.distance(pairs.solved_by(teacher.flow, steps, guidance)))
    return {
        "val/distance": float(torch.stack(student_distances).mean()),
        "val/teacher_distance": float(torch.stack(teacher_distances).mean()),
    }


def trained_codec(recipe: ReflowRecipe) -> ReasoningCodec:
    """The codec to distil, frozen but for its flow decoder.

    Raises:
        UserError: init names none, or one whose decoder is distilled already.
    """
    codec = load_reasoning_codec(resolve_model(recipe.init))
    if codec.config.decode_guidance == 1 and recipe.teacher_guidance != 1:
        raise UserError(f"{recipe.init}: its decoder works without guidance; set teacher_guidance to 1")
    codec.requires_grad_(False)
    codec.flow.requires_grad_(True)
    return codec
