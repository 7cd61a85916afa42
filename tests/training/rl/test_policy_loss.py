"""GRPO's formulas: advantages within groups, the clipped ratio, the KL estimate."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from training.rl.policy_loss import answer_mean, clipped_policy_loss, group_advantages, kl_divergence

REWARD = st.floats(0, 1, width=32)
GROUPS = st.integers(2, 9).flatmap(lambda g: st.lists(st.lists(REWARD, min_size=g, max_size=g), min_size=1, max_size=4))
LOG_PROBS = st.lists(st.floats(-12, 0, width=32), min_size=6, max_size=6)


@given(REWARD, st.integers(2, 17))
def test_equal_rewards_have_no_advantage_and_no_gradient_at_all(reward, size):
    advantages = group_advantages(torch.full((2, size), reward))
    assert (advantages == 0).all()
    log_probs = torch.randn(2 * size, 5, requires_grad=True)
    mask = torch.ones(2 * size, 5, dtype=torch.bool)
    clipped_policy_loss(log_probs, torch.randn(2 * size, 5), advantages.flatten(), mask, 0.2)[0].backward()
    assert (log_probs.grad == 0).all()


@given(GROUPS)
def test_advantages_are_centred_and_ordered_as_the_rewards_are(groups):
    rewards = torch.tensor(groups)
    advantages = group_advantages(rewards)
    torch.testing.assert_close(advantages.sum(1), torch.zeros(len(groups)), atol=1e-3, rtol=0)
    assert (advantages.std(1, correction=0) < 1.01).all()
    better = rewards[:, :, None] > rewards[:, None]
    assert (advantages[:, :, None] >= advantages[:, None])[better].all()


def test_advantages_of_a_group_by_hand():
    torch.testing.assert_close(
        group_advantages(tensor([[0.0, 1.0, 0.0, 1.0], [0.5] * 4])),
        tensor([[-1.0, 1.0, -1.0, 1.0], [0.0] * 4]),
        atol=1e-3,
        rtol=0,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "learns"),
    [
        (1.0, 2.0, 2.0, True),
        (1.1, 2.0, 2.2, True),
        (1.5, 2.0, 2.4, False),  # likelier than it was, and good: enough
        (0.5, 2.0, 1.0, True),  # good, but less likely than it was: back
        (0.5, -2.0, -1.6, False),
        (1.5, -2.0, -3.0, True),
    ],
)
def test_clipping(ratio, advantage, gain, learns):
    log_probs = tensor([[ratio]]).log().requires_grad_()
    loss, share = clipped_policy_loss(
        log_probs, torch.zeros(1, 1), tensor([advantage]), torch.ones(1, 1, dtype=torch.bool), 0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx(-gain)
    assert (log_probs.grad.abs().sum() > 0) == learns and share.item() == (not learns)


def test_at_ratio_one_the_gradient_is_that_of_reinforce():
    log_probs = torch.randn(3, 4, requires_grad=True)
    advantages, mask = tensor([1.0, -0.5, 2.0]), torch.ones(3, 4, dtype=torch.bool)
    clipped_policy_loss(log_probs, log_probs.detach(), advantages, mask, 0.2)[0].backward()
    torch.testing.assert_close(log_probs.grad, -advantages[:, None].expand(3, 4) / 12)


@given(LOG_PROBS, LOG_PROBS)
def test_kl_is_never_negative_and_zero_of_itself(ours, theirs):
    ours, theirs, mask = tensor([ours]), tensor([theirs]), torch.ones(1, 6, dtype=torch.bool)
    assert kl_divergence(ours, theirs, mask) >= 0
    assert kl_divergence(ours, ours, mask) == 0


def test_kl_estimates_the_divergence():
    """Averaged over what the policy draws, it is the divergence of the two distributions."""
    policy, reference = tensor([0.7, 0.2, 0.1]), tensor([0.3, 0.3, 0.4])
    drawn = torch.multinomial(policy, 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, len(drawn), dtype=torch.bool)
    estimate = kl_divergence(policy.log()[drawn][None], reference.log()[drawn][None], mask)
    assert estimate.item() == pytest.approx(float((policy * (policy / reference).log()).sum()), abs=0.01)


def test_padding_has_no_say_and_long_answers_no_more_than_short_ones():
    values = tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 99.0, 99.0, 99.0]], requires_grad=True)
    mask = tensor([[1, 1, 1, 1], [1, 0, 0, 0]]).bool()
    mean = answer_mean(values, mask)
    mean.backward()
    assert mean == 2.0 and (values.grad[~mask] == 0).all()
