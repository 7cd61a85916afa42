"""Initialisation from data: every layer's outputs begin with the wanted deviation, frozen layers stay as they are."""

import pytest
import torch
from torch import nn

from codec.layers.initialisation import initialise_from_data


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2), nn.ELU(), nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1), nn.ELU(),
        nn.Conv1d(4, 6, 3, bias=False),
    )  # fmt: skip


def outputs_of(model, layers, x):
    seen = {}
    hooks = [layer.register_forward_hook(lambda m, _, y: seen.__setitem__(m, y)) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
def test_each_layer_begins_with_the_wanted_deviation(scale):
    model, x = network(), scale * torch.randn(4, 3, 50) + 3 * scale
    initialise_from_data(model, lambda: model(x), {model[4]: 0.25})
    first, transposed, last = (outputs_of(model, model, x)[model[i]] for i in (0, 2, 4))
    assert first.mean((0, 2)).abs().max() < 1e-4 and (first.std((0, 2)) - 1).abs().max() < 0.01
    assert transposed.mean((0, 2)).abs().max() < 1e-4 and 0.5 < float(transposed.std()) < 2  # one factor for all
    assert (last.std((0, 2)) - 0.25).abs().max() < 0.01


def test_linear_layers_frozen_ones_and_constant_outputs():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    model[2].weight.data[0] = 0.0  # gives its bias, whatever comes in
    frozen = model[1].weight.clone()
    x = torch.randn(2, 7, 3)
    initialise_from_data(model, lambda: model(x))
    seen = outputs_of(model, model, x)
    assert torch.equal(model[1].weight, frozen)
    assert (seen[model[0]].flatten(0, 1).std(0, correction=0) - 1).abs().max() < 1e-3
    assert seen[model[2]][..., 0].abs().max() < 1e-5 and torch.isfinite(seen[model[2]]).all()


def test_a_layer_that_is_reached_twice_is_set_once():
    layer = nn.Linear(4, 4)
    x = torch.randn(100, 4)
    initialise_from_data(layer, lambda: layer(layer(x)))
    with torch.no_grad():
        assert (layer(x).std(0, correction=0) - 1).abs().max() < 1e-3
