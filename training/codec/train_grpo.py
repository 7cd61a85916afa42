"""Codec stage 1, second part: GRPO on the detailed analysis (ReasoningCodec §A.2; formulas: rl/policy_loss.py).

From the audio LLM of a descriptive run several analyses of each clip are sampled; those that agree better with the
ground truth than the rest of their group become likelier, within a clipped distance of the policy that sampled them and
at a price for leaving the supervised model. Published: the order (supervised, then GRPO) and the reward (a language
model judges the consistency with the ground truth), off by default here in favour of rewards that can be verified. Not
published, hence ours: group size, KL weight, clip, learning rate, steps, and what is trained: the same as in supervised
training (branch, projection, adapters), with the codebooks frozen, so that a code keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.rng import stable_hash
from codec.io.errors import UserError
from codec.io.numbers import Below, Count, Filled, Name, NonNegative, Positive, Range, Size
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import fingerprint_of, load_audio_llm
from training.codec.audio_qa import AudioQABatch, AudioQADataset, Augmentation
from training.codec.losses.weighted_sum import weighted_sum
from training.codec.supervision import AudioQARecipe, load_descriptive_encoder
from training.engine.attention import plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.lm.audio_projector import AUDIO_LLM_FILE, save_audio_llm
from training.resume import Resume
from training.rl.llm_judge import Judge, JudgeRecipe, load_judge
from training.rl.policy import Policy
from training.rl.policy_loss import clipped_policy_loss, group_advantages, kl_divergence
from training.rl.rewards import REWARDS, verified, weighted_mean
from training.run import Run

TASK, JUDGED = "analysis", "judge"
_REWARDS = {"format": 0.5, "words": 2.0, "tags": 1.0, "tempo": 0.5, "key": 0.5, "count": 0.5}


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(AudioQARecipe):
    """Group-relative policy optimisation of the analyses. A step samples groups and makes `updates` updates of them."""

    READS = ("corpora", "init", "text_model", "prompts", "judge.model")

    # a descriptive run whose tasks had `analysis` among them; text_model names the one that it was trained with
    init: Name
    # clips in a micro-batch
    batch: Size = 4
    # analyses of each clip
    group: Annotated[int, Range(2, 2**20)] = 8
    # sampling temperature
    temperature: Annotated[float, Range(0, 1000, open=True)] = 1.0
    # text tokens of an analysis, at most; one that has not ended by then is rewarded with 0
    max_new_tokens: Size = 256
    # updates of the weights for each step
    updates: Count = 1
    # reward -> weight in the mean over those that apply to a clip
    rewards: Annotated[dict[str, Positive], Filled()] = field(default_factory=lambda: dict(_REWARDS))
    # the language model behind the reward "judge"; required where that has a weight
    judge: JudgeRecipe | None = None
    # whether the descriptive branch is trained too; else its codes stay as they are
    train_branch: bool = True
    # distance of the ratio of a token's probabilities from 1 beyond which nothing is gained
    clip: Annotated[float, Below(0, 1, open=True)] = 0.2
    # weight of the KL divergence from the supervised model
    kl_weight: NonNegative = 0.04
    # weight of the commitment loss, which keeps the branch near the frozen codebooks
    commitment_weight: NonNegative = 1.0

    def __post_init__(self) -> None:
        known = [*REWARDS, JUDGED]
        unknown = sorted(self.rewards.keys() - known)
        if unknown:
            raise UserError(f"rewards: name some of {', '.join(known)}, not {unknown[0]!r}")
        if (JUDGED in self.rewards) != (self.judge is not None):
            raise UserError("rewards.judge and judge belong together: give both or neither")
        if self.engine.zero_stage == 3:
            raise UserError("engine.zero_stage 3 splits the weights that sampling needs at every token; use at most 2")


@dataclass
class Rollout:
    """A micro-batch of groups: N = B G analyses of B clips, the first clip's G first."""

    # the questions about the clips
    batch: AudioQABatch
    # N lists of text tokens
    answers: list[list[int]]
    # (N,)
    advantages: Tensor
    # means, for the metrics log
    facts: dict[str, float]
    # (N, L) log-probabilities of the tokens by the policy that sampled them; None before its first update
    old: Tensor | None = None
    # (N, L) the same by the supervised model
    reference: Tensor | None = None


def run(recipe: GrpoRecipe, resume: Resume = False) -> Path:
    """Train, and return the model's folder: the same files as a descriptive run's, to be used in their place."""
    with Run(recipe, resume) as run:
        clips = read_corpora(recipe.corpora)
        start = resolve_model(recipe.init)
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        encoder = load_descriptive_encoder(start)
        train, held_out = AudioQADataset.train_and_dev(
            clips, {TASK: 1.0}, (TASK,), encoder, recipe.questions(Augmentation()), recipe.seed
        )
        facts = {
            "clips": train.fingerprint,
            "text_tokenizer": tokenizer.fingerprint,
            "supervised_model": fingerprint_of(start),
        }
        run.check(facts)
        audio_llm, supervised, scale = load_audio_llm(
            encoder.branch, start, recipe.text_model, tokenizer, recipe.text_dtype
        )
        audio_llm.branch.requires_grad_(recipe.train_branch)
        policy = Policy(audio_llm, recipe.temperature)
        updates = recipe.steps * recipe.updates
        engine = Engine(policy, recipe.optimiser, recipe.engine, updates, recipe.seed, run.engine_state())
        encoder.to(engine.device)
        policy.train()
        judge = load_judge(recipe.judge, engine.device) if recipe.judge else None
        weights = {"policy": 1.0, "kl": recipe.kl_weight, "commitment": recipe.commitment_weight}
        write = partial(write_model, encoder, supervised, scale)

        for step in run.steps():
            rollouts = [
                roll_out(policy, train.batch(index), recipe, judge, (step, index), engine.device)
                for index in engine.micro_batches(step)
            ]
            for _ in range(recipe.updates):
                for rollout in rollouts:
                    losses = policy_losses(engine, rollout, recipe.clip)
                    engine.backward(weighted_sum(losses, weights), names=rollout.batch.names)
                    engine.record(**losses, **rollout.facts)
                engine.step()
            run.metric_logger.count(analyses=sum(len(rollout.answers) for rollout in rollouts))
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    rewards = held_out_rewards(policy, held_out, recipe, engine.device)
                run.metric_logger.write(step, rewards)
            if run.save_due(step):
                run.save(step, {"model": engine}, write, facts)
    return run.model


def policy_losses(engine: Engine, rollout: Rollout, clip: float) -> dict[str, Tensor]:
    """Policy, KL and commitment loss of a rollout, and the share of tokens that are clipped.

    The first pass over a rollout also sets its old and reference log-probabilities: the policy is still the one that
    sampled it, and its ratio to itself is exactly 1.
    """
    first = rollout.old is None
    with plain_attention(engine.device):
        inputs = policy_inputs(rollout.batch, engine.device)
        out = engine(**inputs, answers=rollout.answers, with_reference=first)
    if first:
        rollout.old, rollout.reference = out.log_probs.detach(), out.reference
    policy, clipped = clipped_policy_loss(out.log_probs, rollout.old, rollout.advantages, out.mask, clip)
    kl = kl_divergence(out.log_probs, rollout.reference, out.mask)
    return {"policy": policy, "kl": kl, "clipped": clipped, "commitment": out.commitment}


def write_model(
    encoder: DescriptiveEncoder,
    supervised: Mapping[str, Tensor],
    scale: float,
    folder: Path,
    state: Mapping[str, Tensor],
) -> None:
    """Fill a model folder from a policy's state: the branch, and the audio LLM's own tensors beside it.

    What of `supervised` was not trained is passed on as it was.
    """
    prefix = "audio_llm.branch."
    encoder.save_pretrained(folder, {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
    own = {name: state.get(f"audio_llm.{name}", tensor) for name, tensor in supervised.items()}
    save_audio_llm(own, scale, folder / AUDIO_LLM_FILE)


def roll_out(
    policy: Policy,
    batch: AudioQABatch,
    recipe: GrpoRecipe,
    judge: Judge | None,
    key: tuple[int, int],
    device: torch.device,
) -> Rollout:
    """Sample and reward a group of analyses of each clip: a function of the policy, the recipe's seed and `key`."""
    count = len(batch.examples) * recipe.group
    seeds = [stable_hash("analysis", recipe.seed, *key, number) >> 1 for number in range(count)]
    with plain_attention(device):
        answers = policy.sample(**policy_inputs(batch, device), seeds=seeds, max_new_tokens=recipe.max_new_tokens)
    tokenizer = policy.audio_llm.tokenizer
    texts = [tokenizer.decode(answer).strip() for answer in answers]
    examples = [example for example in batch.examples for _ in range(recipe.group)]
    scores = [verified(example.clip, text, recipe.rewards) for example, text in zip(examples, texts, strict=True)]
    facts = {}
    if judge is not None:
        judged = judge.score([(example.dialogue.answer, text) for example, text in zip(examples, texts, strict=True)])
        facts["judge_unreadable"] = sum(score is None for score in judged) / count
        for rewards, score in zip(scores, judged, strict=True):
            rewards[JUDGED] = score or 0.0  # to leave the judge without a score must not be rewarded
    ended = [answer[-1] == tokenizer.eos for answer in answers]
    rewards = torch.tensor(
        [weighted_mean(s, recipe.rewards) if e else 0.0 for s, e in zip(scores, ended, strict=True)]
    ).unflatten(0, (-1, recipe.group))  # (B, G)
    facts |= {
        "reward": float(rewards.mean()),
        "reward_deviation": float(rewards.std(1, correction=0).mean()),  # within groups; 0: no gradient
        "ended": sum(ended) / count,
        "analysis_tokens": sum(map(len, answers)) / count,
    }
    facts |= {f"reward_{name}": value for name, value in _means(scores).items()}
    return Rollout(batch, answers, group_advantages(rewards).flatten().to(device), facts)


def policy_inputs(batch: AudioQABatch, device: torch.device) -> dict[str, Any]:
    """Features and questions of a batch, as Policy takes them."""
    return batch.features(device) | {"questions": batch.questions}


def held_out_rewards(
    policy: Policy, held_out: AudioQADataset, recipe: GrpoRecipe, device: torch.device
) -> dict[str, float]:
    """Mean verifiable rewards of the likeliest analyses of dev clips."""
    scores = []
    for batch in held_out.questions(TASK, recipe.held_out_limit):
        texts = policy.audio_llm.answer(**policy_inputs(batch, device), max_new_tokens=recipe.max_new_tokens)
        scores += [verified(e.clip, text, recipe.rewards) for e, text in zip(batch.examples, texts, strict=True)]
    total = [weighted_mean(score, recipe.rewards) for score in scores]
    means = {f"val/reward_{name}": value for name, value in _means(scores).items()}
    return {"val/reward": sum(total) / len(total)} | means


def _means(scores: list[dict[str, float]]) -> Mapping[str, float]:
    """Mean of each reward over the analyses that it applies to."""
    values_of: dict[str, list[float]] = {}
    for score in scores:
        for name, value in score.items():
            values_of.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in values_of.items()}
