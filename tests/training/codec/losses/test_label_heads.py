"""Linear heads for labels: which clips they learn from, in which unit, and that they learn."""

import math

import pytest
import torch

from training.codec.losses.label_heads import LabelHeads

VALUES = {"gender": ("female", "male"), "tempo": ("fast", "medium", "slow")}


def small_heads(seed=0):
    torch.manual_seed(seed)
    return LabelHeads(6, VALUES)


@torch.no_grad()
def test_a_guess_costs_one_whatever_the_number_of_values():
    heads = small_heads()
    for parameter in heads.parameters():
        torch.nn.init.zeros_(parameter)
    loss = heads(torch.randn(2, 4, 6), torch.ones(2, 4, dtype=torch.bool), [{"gender": "male"}, {"tempo": "slow"}])
    assert float(loss) == pytest.approx(1.0)


@torch.no_grad()
def test_the_loss_is_the_mean_over_labels_that_are_known():
    heads, frames, mask = small_heads(), torch.randn(3, 5, 6), torch.ones(3, 5, dtype=torch.bool)
    labels = [{"gender": "male", "tempo": "fast"}, {"tempo": "never heard", "class": "bell"}, {"gender": "female"}]
    known = [(0, 0, 1), (0, 1, 0), (2, 0, 0)]  # clip, label, place of its value
    wanted = 0.0
    for clip, label, place in known:
        pooled = torch.cat([frames[clip].mean(0), (frames[clip].var(0, correction=0) + 1e-5).sqrt()])
        scores = heads.heads[label](pooled)
        wanted += float(scores.logsumexp(0) - scores[place]) / math.log(len(scores)) / len(known)
    assert float(heads(frames, mask, labels)) == pytest.approx(wanted, rel=1e-5)
    assert heads(frames, mask, [{}, {"class": "bell"}, {}]) == 0


@torch.no_grad()
def test_frames_beyond_a_clip_do_not_count():
    heads, frames, labels = small_heads(), torch.randn(1, 5, 6), [{"gender": "male"}]
    alone = heads(frames, torch.ones(1, 5, dtype=torch.bool), labels)
    padded = torch.cat([frames, torch.full((1, 3, 6), 9.0)], dim=1)
    assert float(heads(padded, torch.arange(8)[None] < 5, labels)) == pytest.approx(float(alone), rel=1e-5)


def test_gradients_reach_the_frames_even_of_one_frame():
    heads, frames = small_heads(), torch.randn(2, 1, 6, requires_grad=True)
    heads(frames, torch.ones(2, 1, dtype=torch.bool), [{"tempo": "slow"}, {"tempo": "fast"}]).backward()
    assert frames.grad.isfinite().all() and frames.grad.abs().sum(-1).gt(0).all()
