"""The flow estimator against the published numbers, and what must hold for any weights."""

import pytest
import torch

from codec.reasoning.flow_transformer import FlowTransformer, sinusoidal_positions
from tests.factories.release.codec_parity import converted_state, facts, load_fixture


@pytest.fixture(scope="module")
def published(parity_dir):
    sizes = facts(parity_dir / "flow.json")["config"]
    estimator = FlowTransformer(
        dim_in=sizes["in_channels"],
        dim_out=sizes["out_channels"],
        layers=sizes["layers"],
        heads=sizes["heads"],
        head_dim=sizes["head_dim"],
        ff_mult=sizes["ff_mult"],
        max_frames=sizes["max_positions"],
    ).eval()
    state = converted_state(parity_dir / "flow.json", "flow.estimator.")
    assert not set(state) ^ set(estimator.state_dict())
    estimator.load_state_dict(state)
    return estimator, load_fixture(parity_dir / "flow.safetensors")


def test_one_call_reproduces_the_published_numbers(published):
    estimator, fixture = published
    taps = {}

    def keep(name):
        return lambda module, inputs, output: taps.__setitem__(name, output)

    hooks = [
        estimator.input.register_forward_hook(keep("call.proj_in_out")),
        estimator.time.register_forward_hook(keep("time")),
        estimator.blocks[0].attention.register_forward_hook(keep("call.block0_attn_out")),
        *(block.register_forward_hook(keep(f"call.block{i}_out")) for i, block in enumerate(estimator.blocks)),
        estimator.output.register_forward_pre_hook(
            lambda m, inputs: taps.__setitem__("call.before_proj_out", inputs[0])
        ),
    ]
    out = estimator(fixture["call.x"], fixture["call.t"])
    for hook in hooks:
        hook.remove()
    taps["call.t_embedded"], taps["call.t_six_vectors"] = taps.pop("time")
    for name, value in taps.items():
        torch.testing.assert_close(value, fixture[name], atol=5e-4, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(out, fixture["call.out"], atol=2e-4, rtol=0)
    frames, width = fixture["call.proj_in_out"].shape[1:]
    table = sinusoidal_positions(frames, width)
    torch.testing.assert_close(fixture["call.proj_in_out"] + table, fixture["call.with_positions"], atol=5e-4, rtol=0)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    estimator = FlowTransformer(dim_in=12, dim_out=4, layers=2, heads=2, head_dim=8).eval()
    x, t = torch.randn(2, 9, 12), torch.tensor([0.3, 0.9])
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    padded = estimator(x, t, mask)
    alone = estimator(x[1:, :5], t[1:])
    torch.testing.assert_close(padded[1, :5], alone[0], atol=1e-5, rtol=1e-4)
    other = x.clone()
    other[1, 5:] = 100.0
    assert torch.equal(estimator(other, t, mask)[1, :5], padded[1, :5])


def test_too_many_frames_are_refused():
    estimator = FlowTransformer(dim_in=12, dim_out=4, layers=1, heads=2, head_dim=8, max_frames=6)
    with pytest.raises(ValueError, match="7 frames"):
        estimator(torch.zeros(1, 7, 12), torch.zeros(1))
