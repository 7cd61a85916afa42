"""Fast convolutions: the values of PyTorch's, whatever the sizes; when they are used; weights that change."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codec.layers.acoustic import apply_weight_norm, fold_weight_norm
from codec.layers.fast_conv import FastConv1d, FastConvTranspose1d, filtered, turned_taps

# (channels in and out, kernel, dilation, steps): all ways a convolution may go, with tiles and pieces cut anywhere
CONVOLUTIONS = [
    (32, 32, 7, 1, 16),
    (32, 48, 7, 1, 3_001),
    (64, 64, 7, 3, 2_500),
    (256, 32, 7, 9, 1_200),
    (32, 32, 5, 2, 77),
    (32, 32, 7, 9, 30),  # too short for tiles
    (16, 16, 7, 3, 100),  # too narrow
    (32, 32, 9, 1, 100),
    (64, 40, 1, 1, 50),
    (1, 64, 7, 1, 100),
    (64, 1, 7, 1, 100),
    (16, 1, 5, 3, 100),
    (16, 32, 3, 1, 33),
]


def same(fast: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What a layer gives without gradients, once it was found to be what it gives with them."""
    fast.eval()
    expected = fast(x).detach()
    with torch.no_grad():
        made = fast(x)
        assert torch.equal(fast(x), made)  # with weights that are kept
    torch.testing.assert_close(made, expected, rtol=0, atol=3e-5)
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("channels, out, kernel, dilation, steps", CONVOLUTIONS)
def test_values_are_those_of_the_direct_convolution(channels, out, kernel, dilation, steps, bias):
    torch.manual_seed(0)
    layer = FastConv1d(channels, out, kernel, dilation=dilation, padding=kernel // 2 * dilation, bias=bias)
    assert same(layer, torch.randn(2, channels, steps)).shape == (2, out, steps)


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 3}, {"padding": 0}, {"padding": 3, "groups": 2}])
def test_others_go_the_plain_way(options):
    torch.manual_seed(0)
    same(FastConv1d(64, 64, 7, **options), torch.randn(1, 64, 200))


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_transposed_convolution_is_one_product(stride, steps):
    torch.manual_seed(0)
    sizes = {"stride": stride, "padding": (stride + 1) // 2, "output_padding": stride % 2}
    layer = FastConvTranspose1d(12, 6, 2 * stride, **sizes)
    assert same(layer, torch.randn(2, 12, steps)).shape == (2, 6, stride * steps)
    same(FastConvTranspose1d(12, 6, 2 * stride + 1, stride=stride), torch.randn(1, 12, steps))  # the plain way


def test_it_is_exact_to_a_few_roundings():
    torch.manual_seed(0)
    x, weight = torch.randn(4_000, 64), torch.randn(64, 64, 7) / (7 * 64) ** 0.5
    exact = F.conv1d(x.T[None].double(), weight.double(), padding=3)[0].T
    made = filtered(x, turned_taps(weight), None, 7, 1)
    assert (made - exact).abs().max() < 2e-5 and (made - exact).square().mean().sqrt() < 2e-6


def test_fewer_multiplications_are_made():
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = FastConv1d(64, 64, 7, padding=3).eval(), torch.randn(1, 64, 4_096)
    with torch.no_grad():
        layer(x)  # turns the weights
        with FlopCounterMode(display=False) as counter:
            layer(x)
    assert counter.get_total_flops() < 0.65 * 2 * 7 * 64 * 64 * 4_096


@pytest.mark.parametrize("change", ["in place", "loaded", "replaced", "data in training", "copied", "weight norm"])
def test_weights_that_change_are_turned_again(change):
    torch.manual_seed(0)
    layers = (FastConv1d(32, 32, 7, padding=3), FastConvTranspose1d(32, 16, 4, 2, 1))
    for layer in layers:
        x = torch.randn(1, 32, 64)
        before = same(layer, x)
        if change == "in place":
            with torch.no_grad():
                layer.weight.mul_(2)
        elif change == "loaded":
            layer.load_state_dict({name: 2 * tensor for name, tensor in layer.state_dict().items()})
        elif change == "replaced":
            layer.weight = nn.Parameter(2 * layer.weight.detach())
        elif change == "data in training":
            layer.train()
            layer.weight.data.mul_(2)
        elif change == "copied":
            layer = copy.deepcopy(layer)
            with torch.no_grad():
                layer.weight.mul_(2)
        else:
            holder = nn.Sequential(layer)
            apply_weight_norm(holder)
            with torch.no_grad():
                layer.parametrizations.weight.original0.mul_(2)
            after = same(layer, x)
            fold_weight_norm(holder)
            torch.testing.assert_close(same(layer, x), after, rtol=0, atol=3e-5)
        assert (same(layer, x) - before).abs().max() > 0.1


def test_nothing_of_it_is_saved_and_gradients_are_the_plain_ones():
    layer = FastConv1d(32, 32, 7, padding=3).eval()
    with torch.inference_mode():
        layer(torch.randn(1, 32, 100))
    assert set(layer.state_dict()) == {"weight", "bias"}
    x = torch.randn(1, 32, 100, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and x.grad is not None
