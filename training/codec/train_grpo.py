"""Codec stage 1, second part: GRPO on the detailed analysis (ReasoningCodec §A.2; formulas: rl/policy_loss.py).

The audio LLM of a descriptive run says several analyses of each clip at random; those that agree better with the ground
truth than the rest of their group become likelier, within a clipped distance of the policy that said them and at a
price for leaving the supervised model. Published: the order (supervised, then GRPO) and the reward (a language model
judges the consistency with the ground truth), off by default here in favour of rewards that can be verified. Not
published, hence ours: group size, KL weight, clip, learning rate, steps, and what learns: what supervised training
taught (branch, projection, adapters), with the codebooks frozen, so that a code goes on meaning what it meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpora
from auditory_sentences.rng import stable_hash
from codec.io.errors import UserError
from codec.io.numbers import Below, Count, Filled, Name, NonNegative, Positive, Range, Seconds, Size
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from lm.text_tokenizer import TextTokenizer
from training.codec.audio_llm import LISTENER_FILE, fingerprint_of, load_listener, save_listener
from training.codec.audio_qa import AudioQADataset, Augmentation, ListeningBatch, train_and_held_out
from training.codec.train_descriptive import PRECISION, plain_attention
from training.engine.checkpoint import resolve_model
from training.engine.engine import Engine
from training.recipe import Corpora, Recipe
from training.resume import Resume
from training.rl.llm_judge import Judge, JudgeRecipe, load_judge
from training.rl.policy import Policy
from training.rl.policy_loss import clipped_policy_loss, group_advantages, kl_divergence
from training.rl.rewards import REWARDS, verified, weighted_mean
from training.run import Run

TASK, JUDGED = "analysis", "judge"
_REWARDS = {"format": 0.5, "words": 2.0, "tags": 1.0, "tempo": 0.5, "key": 0.5, "count": 0.5}


@dataclass(frozen=True, kw_only=True)
class GrpoRecipe(Recipe):
    """What is rewarded and how far the policy may go.

    steps: batches of groups that are sampled; each makes `updates` updates of the weights
    init: a descriptive run whose tasks had `analysis` among them; text_model: the one that it was trained with
    corpora, prompts, max_seconds, cache_features: as in a descriptive recipe
    batch: clips in a micro-batch; group: analyses of each, sampled at `temperature`, of at most `max_new_tokens` ids;
    one that
        has not ended by then earns nothing
    rewards: name -> weight in the mean over those that apply to a clip
    judge: who gives the reward "judge"; needed where that has a weight
    branch_learns: whether the descriptive branch does, or the text model's adapters and the projection alone, so that
        every clip keeps its codes
    clip: how far the ratio of an id's probabilities may go from 1; kl_weight: price of leaving the supervised model
    commitment_weight: as in a descriptive recipe; keeps the branch near the codebooks, which are frozen
    held_out_limit: dev clips whose likeliest analyses are rewarded at validation
    """

    READS = ("corpora", "init", "text_model", "prompts", "judge.model")

    corpora: Corpora
    init: Name
    text_model: Name
    text_precision: Literal["fp32", "bf16"] = "fp32"
    prompts: str = ""
    batch: Size = 4
    max_seconds: Seconds = 30.0
    cache_features: bool = False
    group: Annotated[int, Range(2, 2**20)] = 8
    temperature: Annotated[float, Range(0, 1000, open=True)] = 1.0
    max_new_tokens: Size = 256
    updates: Count = 1
    rewards: Annotated[dict[str, Positive], Filled()] = field(default_factory=lambda: dict(_REWARDS))
    judge: JudgeRecipe | None = None
    branch_learns: bool = True
    clip: Annotated[float, Below(0, 1, open=True)] = 0.2
    kl_weight: NonNegative = 0.04
    commitment_weight: NonNegative = 1.0
    held_out_limit: Count = 100

    def __post_init__(self) -> None:
        known = [*REWARDS, JUDGED]
        unknown = sorted(self.rewards.keys() - known)
        if unknown:
            raise UserError(f"rewards: name some of {', '.join(known)}, not {unknown[0]!r}")
        if (JUDGED in self.rewards) != (self.judge is not None):
            raise UserError("rewards.judge and judge belong together: give both or neither")
        if self.engine.zero_stage == 3:
            raise UserError("engine.zero_stage 3 splits the weights that sampling needs at every id; use at most 2")


@dataclass
class Rollout:
    """A micro-batch of groups: N = B G analyses of B clips, the first clip's G first.

    old, reference (N, L): log-probabilities of the ids by the policy that said them and by the supervised model
    """

    batch: ListeningBatch
    answers: list[list[int]]
    advantages: Tensor  # (N,)
    facts: dict[str, float]  # means, for the metrics log
    old: Tensor | None = None
    reference: Tensor | None = None


def run(recipe: GrpoRecipe, resume: Resume = False) -> Path:
    """Train, and return the model's folder: the same files as a descriptive run's, to be used in their place."""
    with Run(recipe, resume) as run:
        clips = read_corpora(recipe.corpora)
        start = resolve_model(recipe.init)
        tokenizer = TextTokenizer.from_pretrained(recipe.text_model)
        encoder = DescriptiveEncoder.from_pretrained(start)
        if not encoder.branch.initialised:
            raise UserError(f"{start}: its codebooks hold no codes yet; train it for more than quantise_after steps")
        train, held_out = train_and_held_out(
            clips,
            {TASK: 1.0},
            (TASK,),
            encoder,
            PromptBank.load(recipe.prompts or None),
            recipe.batch,
            recipe.max_seconds,
            Augmentation(),
            recipe.cache_features,
            recipe.seed,
        )
        facts = {
            "clips": train.fingerprint,
            "text_tokenizer": tokenizer.fingerprint,
            "supervised_model": fingerprint_of(start),
        }
        run.check(facts)
        precision = PRECISION[recipe.text_precision]
        audio_llm, supervised, scale = load_listener(encoder.branch, start, recipe.text_model, tokenizer, precision)
        audio_llm.branch.requires_grad_(recipe.branch_learns)
        policy = Policy(audio_llm, recipe.temperature)
        updates = recipe.steps * recipe.updates
        engine = Engine(policy, recipe.optimiser, recipe.engine, updates, recipe.seed, run.engine_state())
        encoder.to(engine.device)
        policy.train()
        judge = load_judge(recipe.judge, engine.device) if recipe.judge else None

        def write_model(folder: Path, state: dict[str, Tensor]) -> None:
            state = {name.removeprefix("audio_llm."): tensor for name, tensor in state.items()}
            branch = {name.removeprefix("branch."): t for name, t in state.items() if name.startswith("branch.")}
            encoder.save_pretrained(folder, branch)
            save_listener({name: state.get(name, t) for name, t in supervised.items()}, scale, folder / LISTENER_FILE)

        for step in run.steps():
            rollouts = [
                roll_out(policy, train.batch(index), recipe, judge, (step, index), engine.device)
                for index in engine.micro_batches(step)
            ]
            for update in range(recipe.updates):
                for rollout in rollouts:
                    with plain_attention(engine.device):
                        inputs = policy_inputs(rollout.batch, engine.device)
                        out = engine(**inputs, answers=rollout.answers, with_reference=update == 0)
                    if update == 0:  # the policy is still the one that said them: its ratio to itself is exactly 1
                        rollout.old, rollout.reference = out.log_probs.detach(), out.reference
                    gain, clipped = clipped_policy_loss(
                        out.log_probs, rollout.old, rollout.advantages, out.mask, recipe.clip
                    )
                    kl = kl_divergence(out.log_probs, rollout.reference, out.mask)
                    loss = gain + recipe.kl_weight * kl + recipe.commitment_weight * out.commitment
                    engine.backward(loss, names=[example.name for example in rollout.batch.examples])
                    engine.record(policy=gain, kl=kl, clipped=clipped, commitment=out.commitment, **rollout.facts)
                engine.step()
            run.metric_logger.count(analyses=sum(len(rollout.answers) for rollout in rollouts))
            if run.log_due(step):
                run.metric_logger.write(step, engine.metrics())
            if run.validate_due(step):
                with engine.evaluating():
                    run.metric_logger.write(step, held_out_rewards(policy, held_out, recipe, engine.device))
            if run.save_due(step):
                run.save(step, {"model": engine}, write_model, facts)
    return run.model


def roll_out(
    policy: Policy,
    batch: ListeningBatch,
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
    said = [tokenizer.decode(answer).strip() for answer in answers]
    examples = [example for example in batch.examples for _ in range(recipe.group)]
    scores = [verified(example.clip, text, recipe.rewards) for example, text in zip(examples, said, strict=True)]
    facts = {}
    if judge is not None:
        agreed = judge.score([(example.dialogue.answer, text) for example, text in zip(examples, said, strict=True)])
        facts["judge_unreadable"] = sum(score is None for score in agreed) / count
        for found, score in zip(scores, agreed, strict=True):
            found[JUDGED] = score or 0.0  # what leaves the judge without a score must not pay
    ended = [answer[-1] == tokenizer.eos for answer in answers]
    rewards = torch.tensor(
        [weighted_mean(s, recipe.rewards) if e else 0.0 for s, e in zip(scores, ended, strict=True)]
    ).unflatten(0, (-1, recipe.group))  # (B, G)
    facts |= {
        "reward": float(rewards.mean()),
        "reward_deviation": float(rewards.std(1, correction=0).mean()),  # within groups; 0: nothing to learn from
        "ended": sum(ended) / count,
        "analysis_ids": sum(map(len, answers)) / count,
    }
    facts |= {f"reward_{name}": value for name, value in _means(scores).items()}
    return Rollout(batch, answers, group_advantages(rewards).flatten().to(device), facts)


def policy_inputs(batch: ListeningBatch, device: torch.device) -> dict[str, Any]:
    """Features and questions of a batch, as Policy takes them."""
    inputs = batch.inputs(device)
    return {name: inputs[name] for name in ("speech", "music", "frames")} | {
        "questions": [dialogue.question for dialogue in inputs["dialogues"]]
    }


def held_out_rewards(
    policy: Policy, held_out: AudioQADataset, recipe: GrpoRecipe, device: torch.device
) -> dict[str, float]:
    """Mean verifiable rewards of the likeliest analyses of dev clips."""
    scores = []
    for batch in held_out.questions(TASK, recipe.held_out_limit):
        said = policy.audio_llm.answer(**policy_inputs(batch, device), max_new_tokens=recipe.max_new_tokens)
        scores += [verified(e.clip, text, recipe.rewards) for e, text in zip(batch.examples, said, strict=True)]
    total = [weighted_mean(score, recipe.rewards) for score in scores]
    means = {f"held_out_reward_{name}": value for name, value in _means(scores).items()}
    return {"held_out_reward": sum(total) / len(total)} | means


def _means(scores: list[dict[str, float]]) -> Mapping[str, float]:
    """Mean of each reward over the analyses that it applies to."""
    found: dict[str, list[float]] = {}
    for score in scores:
        for name, value in score.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
