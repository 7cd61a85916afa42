"""oneDNN's operators: the products of a linear layer, and what is said where PyTorch lacks them."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from codec.layers import onednn

needs_onednn = pytest.mark.skipif(not onednn.is_available(), reason="this PyTorch lacks oneDNN's operators")


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_a_linear_layer(dtype):
    """Plain and packed weights, more and fewer rows than packed for, with a bias and added to something."""
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 48).to(dtype), torch.randn(40).to(dtype)
    if not onednn.is_supported(weight):
        pytest.skip(f"this processor has no {dtype} products")
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    packed = onednn.packed(weight, 3)
    for rows in (1, 3, 20):
        x, other = torch.randn(2, rows, 48).to(dtype), torch.randn(2, rows, 40).to(dtype)
        for ours in (weight, packed):
            torch.testing.assert_close(onednn.multiply(x, ours), F.linear(x, weight), **tolerance)
            torch.testing.assert_close(onednn.multiply(x, ours, bias), F.linear(x, weight, bias), **tolerance)
            torch.testing.assert_close(onednn.multiply_add(x, ours, other), F.linear(x, weight) + other, **tolerance)


@needs_onednn
def test_what_is_supported(monkeypatch):
    """Only float types that oneDNN multiplies; nothing where one of the operators is missing."""
    weight = torch.randn(4, 4)
    assert onednn.is_supported(weight) and not onednn.is_supported(weight.double())
    assert not onednn.is_supported(weight.to("meta"))
    there = {name: getattr(torch.ops.mkldnn, name) for name in onednn.OPERATORS}
    for missing in onednn.OPERATORS:
        others = {name: operator for name, operator in there.items() if name != missing}
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**others))
        onednn.is_available.cache_clear()
        assert not onednn.is_available() and not onednn.is_supported(weight)
    monkeypatch.undo()
    onednn.is_available.cache_clear()
    assert onednn.is_available()
