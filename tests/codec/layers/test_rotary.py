"""Rotary embeddings: the two forms are one rotation."""

import torch

from codec.layers.masks import length_mask
from codec.layers.rotary import SignedRotary, rotary_table, rotate, rotate_signed


def test_the_rotation_of_one_step_is_that_of_the_whole():
    cos, sin = rotary_table(7, 8, 10_000.0, torch.device("cpu"))
    x = torch.randn(2, 7, 3, 8, generator=torch.Generator().manual_seed(0))
    whole = rotate(x, (cos[:, None], sin[:, None]))
    tables = SignedRotary(cos, sin)
    torch.testing.assert_close(rotate_signed(x, tables.at(slice(0, 7))), whole)
    steps = [rotate_signed(x[:, i : i + 1], tables.at(torch.tensor([[i], [i]]))) for i in range(7)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_the_dimensions_beyond_the_table_pass():
    rotation = rotary_table(5, 4, 100.0, torch.device("cpu"))
    x = torch.randn(1, 2, 5, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rotate(x, rotation)[..., 4:], x[..., 4:])
    torch.testing.assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))


def test_a_mask_is_true_within_each_length():
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
