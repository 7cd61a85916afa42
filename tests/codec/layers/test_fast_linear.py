"""The faster linear layer: nn.Linear's numbers, its gradients and its parameters, and when it takes which product."""

import pytest
import torch

from codec.layers import fast_linear
from codec.layers.fast_linear import FastLinear

needs_onednn = pytest.mark.skipif(not fast_linear.ONEDNN, reason="this PyTorch lacks MKL or oneDNN")


def pair(ins=48, outs=40, bias=True) -> tuple[FastLinear, torch.nn.Linear]:
    torch.manual_seed(0)
    fast, plain = FastLinear(ins, outs, bias=bias), torch.nn.Linear(ins, outs, bias=bias)
    fast.load_state_dict(plain.state_dict())
    return fast, plain


def operators(call) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (2, 7, 48), (3, 200, 48)])
def test_values_are_those_of_a_linear_layer(shape, bias):
    fast, plain = pair(bias=bias)
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), atol=1e-5, rtol=1e-5)
        strided = torch.randn(2, 48, 9).transpose(1, 2)
        torch.testing.assert_close(fast(strided), plain(strided), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_a_linear_layer():
    fast, plain = pair()
    x = torch.randn(2, 7, 48)
    fast(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(fast.weight.grad, plain.weight.grad) and torch.equal(fast.bias.grad, plain.bias.grad)


@needs_onednn
def test_only_what_needs_no_gradient_in_float32_goes_to_onednn(monkeypatch):
    fast, plain = pair()
    x = torch.randn(2, 7, 48)
    assert "mkldnn::_linear_pointwise" not in operators(lambda: fast(x))
    with torch.no_grad():
        assert "mkldnn::_linear_pointwise" in operators(lambda: fast(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert fast(x).dtype == torch.bfloat16
        narrow = fast.to(torch.bfloat16)(x.to(torch.bfloat16))
        assert narrow.dtype == torch.bfloat16
        torch.testing.assert_close(narrow.float(), plain(x), atol=0.05, rtol=0.05)
        fast.float()
        monkeypatch.setattr(fast_linear, "ONEDNN", False)
        assert "mkldnn::_linear_pointwise" not in operators(lambda: fast(x))
