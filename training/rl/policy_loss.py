"""Group-relative policy optimisation, the formulas (GRPO: DeepSeekMath, arXiv 2402.03300, §4.1).

A group is G answers to the same question. An answer's advantage is how much better it is than its group, in standard
deviations: no value network is needed. Probabilities are of tokens; each has the advantage of its answer.
Shapes: B questions, G answers each, N = B G answers of at most L tokens, which `mask` (N, L) tells from padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-4  # keeps a group whose rewards hardly differ from being blown up


def group_advantages(rewards: Tensor) -> Tensor:
    """(B, G) rewards -> (B, G) advantages: (reward - mean) / standard deviation of the group.

    Exactly zero where all rewards of a group are equal: rounding of the mean must not become a direction to go.
    """
    mean, deviation = rewards.mean(1, keepdim=True), rewards.std(1, correction=0, keepdim=True)
    equal = (rewards == rewards[:, :1]).all(1, keepdim=True)
    return ((rewards - mean) / (deviation + _EPSILON)).masked_fill(equal, 0.0)


def clipped_policy_loss(
    log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """The clipped policy loss, and the share of tokens that are clipped.

    Args:
        log_probs: (N, L) of the tokens now.
        old: (N, L) of the tokens when they were sampled.
        advantages: (N,).
        mask: (N, L) bool.
        clip: where the ratio of the probabilities has left [1 - clip, 1 + clip] in the direction of the advantage, the
            gradient is zero.
    """
    ratio = (log_probs - old).exp()
    gains = ratio * advantages[:, None]
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages[:, None]
    loss = -answer_mean(torch.minimum(gains, clipped), mask)
    return loss, answer_mean((clipped < gains).float(), mask).detach()


def kl_divergence(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """KL of the policy from the reference by Schulman's k3 estimator, r - log r - 1 with r = reference / policy.

    Unbiased, and never negative for any token.
    """
    difference = reference - log_probs
    return answer_mean(difference.expm1() - difference, mask)


def answer_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over answers of the mean over each answer's tokens: a long answer weighs no more than a short one."""
    return ((values * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()
