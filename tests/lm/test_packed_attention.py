"""Attention sentence by sentence gives the library's numbers under a mask, whatever is packed with what."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lm.packed_attention import PackedSentences, packed_attention

WIDTH = 6  # of a head


def reference(query, key, value, rotary, position_ids):
    """The same by a mask over whole packs."""
    packs, steps = query.shape[:2]
    q, k, v = (part.view(packs, steps, -1, WIDTH).transpose(1, 2) for part in (query, key, value))
    q, k = apply_rotary_pos_emb(q, k, *rotary)
    k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    sentence = (position_ids == 0).cumsum(1)
    allowed = (sentence[:, :, None] == sentence[:, None]) & torch.ones(steps, steps).tril().bool()
    scores = (q @ k.transpose(2, 3) * 0.3).masked_fill(~allowed[:, None], -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def inputs(packs, steps, heads, key_heads, rotary_batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    widths = (heads * WIDTH, key_heads * WIDTH, key_heads * WIDTH)
    rows = [torch.randn(packs, steps, width, generator=generator).requires_grad_() for width in widths]
    angles = torch.randn(rotary_batch, steps, WIDTH // 2, generator=generator).repeat(1, 1, 2)
    return rows, (angles.cos(), angles.sin())


@st.composite
def layouts(draw):
    """Positions (B, S) of packs that sentences of any lengths fill."""
    steps = draw(st.integers(1, 40))
    packs = []
    for _ in range(draw(st.integers(1, 3))):
        positions = []
        while len(positions) < steps:
            positions += range(min(draw(st.integers(1, 40)), steps - len(positions)))
        packs.append(positions)
    return torch.tensor(packs)


@settings(deadline=None)
@given(position_ids=layouts(), heads=st.sampled_from([(1, 1), (4, 2), (3, 3), (6, 2)]), shared=st.booleans())
def test_values_and_gradients_are_those_under_a_mask(position_ids, heads, shared):
    rows, rotary = inputs(*position_ids.shape, *heads, 1 if shared else len(position_ids))
    made = packed_attention(*rows, rotary, WIDTH, 0.3, PackedSentences.of(position_ids))
    expected = reference(*rows, rotary, position_ids)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(made.shape, generator=torch.Generator().manual_seed(1))
    for got, wanted in zip(
        torch.autograd.grad(made, rows, direction), torch.autograd.grad(expected, rows, direction), strict=True
    ):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


@given(position_ids=layouts())
def test_every_row_has_one_place_and_no_group_is_mostly_empty(position_ids):
    packed = PackedSentences.of(position_ids)
    rows, none = position_ids.numel(), position_ids.numel()
    everything = torch.cat([group.flatten() for group in packed.groups])
    assert everything[packed.places].tolist() == list(range(rows))
    assert sorted(everything[everything != none].tolist()) == list(range(rows))
    for group in packed.groups:
        assert ((group != none).sum(1) >= 0.75 * group.shape[1]).all()


def test_without_packing_each_entry_is_a_sentence():
    rows, rotary = inputs(3, 8, 4, 2, 1)
    whole = packed_attention(*rows, rotary, WIDTH, 0.3)
    positions = torch.arange(8).expand(3, 8)
    torch.testing.assert_close(whole, packed_attention(*rows, rotary, WIDTH, 0.3, PackedSentences.of(positions)))


@pytest.mark.parametrize("steps", [8, 40])
def test_in_16_bits_it_is_as_near_to_float32_as_the_library(steps):
    """Both ways a softmax is computed, for short and for long rows."""
    rows, rotary = inputs(4, steps, 4, 2, 1)
    positions = torch.arange(steps).expand(4, steps)
    exact = reference(*rows, rotary, positions)
    half = [part.detach().bfloat16().requires_grad_() for part in rows]
    made = packed_attention(*half, rotary, WIDTH, 0.3, PackedSentences.of(positions))
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), exact, atol=0.03, rtol=0.03)
    made.sum().backward()
    exact.sum().backward()
    for got, wanted in zip(half, rows, strict=True):
        torch.testing.assert_close(got.grad.float(), wanted.grad, atol=0.05, rtol=0.05)
