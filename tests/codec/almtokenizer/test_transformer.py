"""Transformer layers with times: how far they look, masks, and that only differences of times matter."""

from __future__ import annotations

import torch

from codec.almtokenizer.config import TransformerConfig
from codec.almtokenizer.transformer import Transformer


def stack(**sizes) -> Transformer:
    torch.manual_seed(0)
    return Transformer(16, TransformerConfig(**({"layers": 2, "heads": 2, "feed_forward": 24} | sizes))).eval()


def test_it_looks_so_far_back_and_ahead_and_no_further():
    model, times = stack(look_back=5, look_ahead=2), torch.arange(60).float() / 2  # two positions a patch
    given = torch.randn(1, 60, 16, requires_grad=True)
    model(given, times)[:, 30, 0].sum().backward()
    touched = given.grad.abs().sum((0, 2)).nonzero()[:, 0]
    assert model.reach == (10, 4)
    assert times[touched[0]] == times[30] - 10 and times[touched[-1]] == times[30] + 4


def test_without_looking_ahead_it_is_causal():
    model, x = stack(look_back=50, look_ahead=0), torch.randn(1, 20, 16)
    whole = model(x, torch.arange(20).float())
    torch.testing.assert_close(model(x[:, :7], torch.arange(7).float()), whole[:, :7])


def test_only_differences_of_times_matter():
    model, x, times = stack(), torch.randn(1, 20, 16), torch.arange(20).float()
    torch.testing.assert_close(model(x, times + 700), model(x, times), atol=1e-4, rtol=1e-4)
    assert (model(x, 2 * times) - model(x, times)).abs().max() > 1e-2


def test_nobody_looks_beyond_a_clips_end():
    model, times = stack(), torch.arange(20).float()
    x = torch.randn(2, 20, 16)
    mask = torch.ones(2, 20, dtype=torch.bool)
    mask[1, 12:] = False
    made = model(x, times, mask)
    assert made.isfinite().all()
    torch.testing.assert_close(made[:1], model(x[:1], times))
    torch.testing.assert_close(made[1:, :12], model(x[1:, :12], times[:12]))


def test_heads_begin_with_what_is_near():
    """Where nothing was learned, attention falls with the distance, to each head by its own slope."""
    model, times = stack(layers=1, look_back=50, look_ahead=50), torch.arange(41).float()
    layer = model.layers[0]
    layer.qkv.weight.data[:32] = 0  # queries and keys
    layer.qkv.weight.data[32:] = torch.eye(16)
    layer.out.weight.data = torch.eye(16)
    layer.down.weight.data.zero_()
    layer.down.bias.data.zero_()
    layer.attention_norm = model.norm = torch.nn.Identity()
    x = torch.zeros(1, 41, 16)
    x[0, 20] = 1.0  # one position that is heard everywhere
    heard = (model(x, times) - x)[0]  # (L, dim): each head's share of attention to it
    for head, slope in enumerate(model.slopes):
        expected = torch.exp(-slope * (times[:, None] - times).abs())
        torch.testing.assert_close(heard[:, 8 * head], (expected / expected.sum(1, keepdim=True))[:, 20])
    assert model.slopes[0] == 2.0 and model.slopes[1] == 0.125
