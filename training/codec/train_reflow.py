"""Few-step decoding: the flow decoder is distilled by reflow (Liu et al. 2022, arXiv 2209.03003, §2.2).

The frozen teacher solves its own equation in many steps, with guidance, from noise to latents under the condition of a
real clip. The student, which starts as a copy, learns the straight path between the two ends of each such pair. A
straight path needs few steps, and guidance, which is inside the pairs, needs no second evaluation: 2 steps of the
student are 2 evaluations, 10 guided steps of the teacher 20. Pairs are made as they are needed; nothing else learns.
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
from codec.tokenizer import load_tokenizer
from codec.tokens import SAMPLE_RATE
from training.codec.audio_crops import AudioCrops, train_and_held_out
from training.codec.feature_extractor import FeatureExtractor, FrozenFeatures
from training.codec.train_descriptive import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.run import Run


@dataclass(frozen=True, kw_only=True)
class ReflowRecipe(Recipe):
    """What the teacher solves and what the student is made for.

    corpora: folders of corpora, for conditions and given prefixes; their latents are no targets
    init: folder of the codec whose flow decoder is distilled
    batch: clips in a micro-batch; crop_seconds: longer clips give a random stretch of that length, best that of a
        decoding window
    teacher_steps, teacher_guidance, teacher_solver: how the teacher makes the end of a pair
    student_steps: of the distilled decoder, its default when it decodes
    times: where on the path the student learns. "uniform" (reflow) is good for any number of steps; "grid", only at the
        times that `student_steps` Euler steps visit (k-step distillation in the authors' code), for that number alone
    prefix_chance: of a micro-batch being given its first frames; prefix_share: at most this share of its shortest clip
    """

    READS = ("corpora", "init")

    corpora: Corpora
    init: Name
    batch: Size = 16
    crop_seconds: Seconds = 20.0
    teacher_steps: Layers = 25
    teacher_guidance: Guidance = 1.5
    teacher_solver: Literal["euler", "midpoint"] = "euler"
    student_steps: Layers = 2
    times: Literal["uniform", "grid"] = "uniform"
    prefix_chance: Share = 0.5
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
    """Both ends of the paths of a micro-batch, and what they depend on.

    noise, latents (normalised) (B, T25, latent_dim); mu (B, T25, dim); mask (B, T25) bool, the clips' frames
    context: the clips' own latents (normalised) of that shape, of which the first `prefix_frames` are given
    """

    noise: Tensor
    latents: Tensor
    mu: Tensor
    mask: Tensor
    context: Tensor
    prefix_frames: int

    def solved_by(self, flow: FlowDecoder, steps: int, guidance: float = 1.0, solver: str = "euler") -> Tensor:
        """Where `flow` goes from the same noise under the same condition, (B, T25, latent_dim)."""
        return flow.solve(self.noise, self.mu, self.mask, self.context, self.prefix_frames, steps, guidance, solver)

    def distance(self, latents: Tensor) -> Tensor:
        """Root mean squared distance of latents from these, over the frames that are generated (a scalar)."""
        counted = self.mask.clone()
        counted[:, : self.prefix_frames] = False
        return (latents - self.latents)[counted].square().mean().sqrt()


class Teacher:
    """The codec as it was: makes the pairs, always in eval mode and without gradients."""

    def __init__(self, codec: ReasoningCodec, recipe: ReflowRecipe) -> None:
        self.codec, self.recipe = codec, recipe
        self.flow = copy.deepcopy(codec.flow).requires_grad_(False)  # the codec's own becomes the student

    @torch.no_grad()
    def pairs(self, heard: FrozenFeatures) -> Pairs:
        """From the seeded draws: a prefix for all clips of the micro-batch or for none, and the noise."""
        recipe, device = self.recipe, heard.latents.device
        structural = self.codec.structural
        quantised = structural(heard.features, heard.descriptive, heard.structural_mask).quantised
        mu = structural.condition(quantised)[:, : heard.latents.shape[1]]
        context = self.flow.normalise(heard.latents)
        given, share = torch.rand(2).tolist()
        share = share * recipe.prefix_share * (given < recipe.prefix_chance)
        prefix = int(share * int(heard.latent_frames.min()))
        mask = length_mask(heard.latent_frames, context.shape[1])
        pairs = Pairs(torch.randn_like(context), context, mu, mask, context, prefix)
        mixed = recipe.engine.precision == "mixed"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed), plain_attention(device):
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
        train, held_out = train_and_held_out(recipe.corpora, recipe.batch, recipe.crop_seconds, recipe.seed)
        codec = trained_codec(recipe)
        facts = {"clips": train.fingerprint, "init": codec.fingerprint}
        run.check(facts)
        codec.config = replace(codec.config, decode_steps=recipe.student_steps, decode_guidance=1.0)
        teacher = Teacher(codec, recipe)  # before the engine goes on from a checkpoint
        model = Student(codec.flow, recipe)
        engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
        codec.to(engine.device).eval()
        teacher.flow.to(engine.device)
        frozen = FeatureExtractor(codec, keep=False)

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
                    run.metric_logger.write(
                        step, held_out_distances(teacher, codec.flow, frozen, held_out, engine.device)
                    )
            if run.save_due(step):
                run.save(step, {"model": engine}, codec.save_pretrained, facts)
    return run.model


def held_out_distances(
    teacher: Teacher, student: FlowDecoder, frozen: FeatureExtractor, crops: AudioCrops, device: torch.device
) -> dict[str, float]:
    """How far from the teacher's many-step latents are the student's in few steps, and the teacher's own in as many?

    Root mean squares in normalised latents, over the same few batches and draws every time.
    """
    steps, guidance = teacher.recipe.student_steps, teacher.recipe.teacher_guidance
    ours, before = [], []
    with torch.random.fork_rng():
        for index in range(4):
            torch.manual_seed(index)
            pairs = teacher.pairs(frozen(crops.batch(index), device))
            ours.append(pairs.distance(pairs.solved_by(student, steps)))
            before.append(pairs.distance(pairs.solved_by(teacher.flow, steps, guidance)))
    return {
        "held_out_distance": float(torch.stack(ours).mean()),
        "held_out_teacher_distance": float(torch.stack(before).mean()),
    }


def trained_codec(recipe: ReflowRecipe) -> ReasoningCodec:
    """The codec to distil, frozen but for its flow decoder."""
    codec = load_tokenizer(resolve_model(recipe.init))
    if not isinstance(codec, ReasoningCodec):
        raise UserError(f"{recipe.init}: a {codec.tokenizer_type} has no flow decoder; use a ReasoningCodec")
    if codec.config.decode_guidance == 1 and recipe.teacher_guidance != 1:
        raise UserError(f"{recipe.init}: its decoder is made to go without guidance; set teacher_guidance to 1")
    codec.requires_grad_(False)
    codec.flow.requires_grad_(True)
    return codec
