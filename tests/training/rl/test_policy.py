"""The policy of GRPO: it samples from the probabilities that it computes, alone and in a batch."""

from __future__ import annotations

import pytest
import torch

from tests.factories import stages
from tests.factories.audio_llm import alone, features, tiny_audio_llm
from training.rl.policy import Policy
from training.rl.policy_loss import kl_divergence


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    stages.prepare(folder)
    return folder


@pytest.fixture
def policy(folder) -> Policy:
    return Policy(tiny_audio_llm(folder, align=False), temperature=0.9)


@pytest.fixture
def batch() -> dict:
    return features() | {"questions": ["What is heard?", "Analyse this recording in detail."]}


def test_an_answer_depends_on_its_own_seed_alone(policy, batch):
    seeds = [11, 12, 13, 14, 15, 16]
    together = policy.sample(**batch, seeds=seeds, max_new_tokens=12)
    assert len(together) == 6 and len({tuple(answer) for answer in together}) > 1
    for row in range(2):
        group = slice(3 * row, 3 * row + 3)
        assert policy.sample(**alone(batch, row), seeds=seeds[group], max_new_tokens=12) == together[group]
    assert policy.sample(**alone(batch, 1), seeds=[16], max_new_tokens=12) == together[5:]


def test_every_token_is_sampled_from_the_forward_passes_probabilities(policy, batch, monkeypatch):
    """Cached, with padding on the left, in a group: the same probabilities as uncached, padded on the right."""
    seen, logits = [], Policy._logits
    monkeypatch.setattr(Policy, "_logits", staticmethod(lambda *a: seen.append(logits(*a)) or seen[-1]))
    answers = policy.sample(**batch, seeds=list(range(8)), max_new_tokens=10)
    with torch.no_grad():
        log_probs = policy(**batch, answers=answers).log_probs
    seen[0] = seen[0].repeat_interleave(4, 0)  # each clip is read once for its group
    compared = 0
    for position, step_logits in enumerate(seen):
        log_softmax = (step_logits / policy.temperature).log_softmax(1)
        for row, answer in enumerate(answers):
            if position < len(answer):
                assert log_softmax[row, answer[position]].item() == pytest.approx(
                    log_probs[row, position].item(), abs=1e-3
                )
                compared += 1
    assert compared == sum(map(len, answers)) > 16


def test_answers_end_with_their_end_or_are_cut_off(policy, batch):
    eos = policy.audio_llm.tokenizer.eos
    for answer in policy.sample(**batch, seeds=list(range(40)), max_new_tokens=9):
        assert eos not in answer[:-1] and (answer[-1] == eos or len(answer) == 9)


def test_samples_follow_the_policys_probabilities(policy, batch):
    """First tokens, sampled often, against the probabilities that the forward pass gives them."""
    one, count = alone(batch, 1), 3000
    sampled = [answer[0] for answer in policy.sample(**one, seeds=list(range(count)), max_new_tokens=1)]
    ids = sorted(set(sampled))
    chance = policy(**one, answers=[[i] for i in ids]).log_probs[:, 0].exp()
    shares = torch.tensor([sampled.count(i) / count for i in ids])
    assert chance.sum() > 0.95 and chance.max() < 0.999
    assert ((shares - chance).abs() < 5 * (chance * (1 - chance) / count).sqrt() + 1e-3).all()


def test_padding_changes_no_probability(policy, batch):
    answers = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14]]
    with torch.no_grad():
        out = policy(**batch, answers=answers, with_reference=True)
        assert out.mask.sum(1).tolist() == [4, 1, 2, 3] and (out.log_probs[~out.mask] == 0).all()
        for row in range(2):
            for number in (2 * row, 2 * row + 1):
                single = policy(**alone(batch, row), answers=[answers[number]]).log_probs[0]
                torch.testing.assert_close(out.log_probs[number, : len(single)], single, atol=1e-4, rtol=1e-4)


def test_the_reference_is_the_policy_before_its_first_update(policy, batch):
    answers = [[5, 6], [7], [8], [9, 10]]
    out = policy(**batch, answers=answers, with_reference=True)
    before = out.reference.clone()
    assert not before.requires_grad and kl_divergence(out.log_probs, before, out.mask) < 1e-9
    out.log_probs.sum().backward()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter -= 0.01 * parameter.grad
        after = policy(**batch, answers=answers, with_reference=True)
    torch.testing.assert_close(after.reference, before, atol=1e-5, rtol=1e-5)
    assert kl_divergence(after.log_probs, after.reference, after.mask) > 1e-6


def test_branch_projection_and_adapters_are_trained_and_the_codebooks_stay(policy, batch):
    books = {n: b.clone() for n, b in policy.named_buffers()}
    policy(**batch, answers=[[5], [6]]).log_probs.sum().backward()
    assert books and all(torch.equal(b, books[n]) for n, b in policy.named_buffers())
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == (".text_model." not in f".{name}" or "lora_" in name), name
    for name in ("branch.query", "branch.merge.weight", "projection.weight"):
        assert policy.audio_llm.get_parameter(name).grad.abs().sum() > 0, name
    assert not any(module.training for module in policy.train().modules())
