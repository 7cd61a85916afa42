"""Flow matching against the published numbers, and its loss, solvers, guidance and prefix."""

from dataclasses import replace

import pytest
import torch

from codec.io.errors import UserError
from codec.reasoning.config import FlowConfig
from codec.reasoning.flow_decoder import FlowDecoder, clip_noise
from tests.factories.release.codec_parity import converted_state, facts, load_fixture

SMALL = FlowConfig(layers=2, heads=2, head_dim=8)


def small_flow(seed=0):
    torch.manual_seed(seed)
    return FlowDecoder(SMALL, latent_dim=4, condition_dim=6).eval()


@pytest.mark.parametrize("place", [0, -1])
def test_published_solution(parity_dir, place):
    """With the least context and with the most that the fixture has."""
    sizes = facts(parity_dir / "flow.json")["config"]
    prefix = sizes["context_frames"][place]
    config = FlowConfig(
        layers=sizes["layers"],
        heads=sizes["heads"],
        head_dim=sizes["head_dim"],
        ff_mult=sizes["ff_mult"],
        max_frames=sizes["max_positions"],
        sigma_min=sizes["sigma_min"],
        window_frames=min(500, sizes["max_positions"] // 2 * 2),
    )
    latent = sizes["latent"]
    flow = FlowDecoder(config, latent_dim=latent, condition_dim=sizes["mu"]).eval()
    result = flow.load_state_dict(converted_state(parity_dir / "flow.json", "flow."), strict=False)
    assert set(result.missing_keys) == {"latent_mean", "latent_spread"} and not result.unexpected_keys
    fixture = load_fixture(parity_dir / "flow.safetensors")
    calls = []
    flow.estimator.register_forward_pre_hook(
        lambda module, inputs: calls.append((inputs[0][:1, :, :latent], inputs[1][0]))
    )
    final = flow.solve(
        fixture["solve.noise"],
        fixture["solve.mu"],
        context=fixture["solve.context_latents"],
        context_frames=prefix,
        steps=sizes["steps"],
        guidance=sizes["guidance"],
    )
    want = f"solve.L{prefix}."
    torch.testing.assert_close(torch.stack([t for _, t in calls]), fixture[want + "t_used"], atol=1e-6, rtol=0)
    steps = torch.cat([x for x, _ in calls])
    torch.testing.assert_close(steps, fixture[want + "estimator_x_per_step"], atol=1e-3, rtol=0)
    torch.testing.assert_close(final, fixture[want + "final"], atol=1e-3, rtol=0)


def test_loss_counts_only_the_frames_to_generate():
    flow = small_flow()
    x, mu, noise = torch.randn(2, 8, 4), torch.randn(2, 8, 6), torch.randn(2, 8, 4)
    mask = torch.arange(8) < torch.tensor([[8], [6]])
    t, given = torch.tensor([0.2, 0.7]), torch.tensor([3, 0])
    loss = flow.loss(x, mu, mask, given, t, noise)
    sigma = flow.config.sigma_min
    y = (1 - (1 - sigma) * t[:, None, None]) * noise + t[:, None, None] * x
    context = x.clone()
    context[0, 3:], context[1] = 0, 0
    error = (flow.velocity(y, t, context, mu, mask) - (x - (1 - sigma) * noise)) ** 2
    by_hand = torch.cat([error[0, 3:], error[1, :6]]).mean()
    torch.testing.assert_close(loss, by_hand)
    beyond = x.clone()
    beyond[1, 6:] = 1e3
    torch.testing.assert_close(flow.loss(beyond, mu, mask, given, t, noise), loss)


def test_a_perfect_velocity_field_is_followed_to_the_data():
    """With the true velocity of one data point both solvers arrive there, whatever the number of steps."""
    flow = small_flow()
    target = torch.randn(1, 8, 4)
    noise = torch.randn(1, 8, 4)
    path = 1 - flow.config.sigma_min
    flow.velocity = lambda *arguments: target - path * noise
    for solver in ("euler", "midpoint"):
        for steps in (1, 3):
            out = flow.solve(noise, torch.zeros(1, 8, 6), steps=steps, guidance=1.0, solver=solver)
            torch.testing.assert_close(out, target, atol=1e-3, rtol=0)


def test_midpoint_is_more_exact_than_euler():
    flow = small_flow()
    noise, mu = torch.randn(2, 8, 4), torch.randn(2, 8, 6)
    exact = flow.solve(noise, mu, steps=400, guidance=1.0)
    euler = (flow.solve(noise, mu, steps=16, guidance=1.0) - exact).abs().mean()
    midpoint = (flow.solve(noise, mu, steps=8, guidance=1.0, solver="midpoint") - exact).abs().mean()
    assert midpoint < 0.5 * euler


def test_guidance_one_is_the_conditional_velocity():
    flow = small_flow()
    noise, mu = torch.randn(1, 8, 4), torch.randn(1, 8, 6)
    near = flow.solve(noise, mu, steps=4, guidance=1.0 + 1e-6)  # through the doubled batch
    torch.testing.assert_close(flow.solve(noise, mu, steps=4, guidance=1.0), near, atol=1e-4, rtol=0)
    zero = flow.solve(noise, torch.zeros_like(mu), steps=4, guidance=3.0)  # nothing to lean away from
    torch.testing.assert_close(zero, flow.solve(noise, torch.zeros_like(mu), steps=4, guidance=1.0), atol=1e-4, rtol=0)


def test_prefix_is_returned_as_given_and_is_heard_by_the_rest():
    flow = small_flow()
    noise, mu, context = torch.randn(1, 8, 4), torch.randn(1, 8, 6), torch.randn(1, 8, 4)
    out = flow.solve(noise, mu, context=context, context_frames=3, steps=4)
    assert torch.equal(out[:, :3], context[:, :3])
    other = flow.solve(noise, mu, context=context + 1.0, context_frames=3, steps=4)
    assert (out[:, 3:] - other[:, 3:]).abs().max() > 1e-3
    late = context.clone()
    late[:, 3:] = 9.0  # beyond the prefix nothing of the context is used
    assert torch.equal(flow.solve(noise, mu, context=late, context_frames=3, steps=4), out)


def test_a_clip_in_a_batch_is_the_clip_alone():
    flow = small_flow()
    noise, mu = torch.randn(2, 8, 4), torch.randn(2, 8, 6)
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    both = flow.solve(noise, mu, mask, steps=5)
    alone = flow.solve(noise[1:, :5], mu[1:, :5], steps=5)
    torch.testing.assert_close(both[1, :5], alone[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("given", [0, 3])
def test_a_captured_velocity_leads_to_the_same_latents(device, solver, guidance, given):
    flow = small_flow().to(device)
    noise, mu, context = (torch.randn(2, 8, n, device=device) for n in (4, 6, 4))
    mask = (torch.arange(8) < torch.tensor([[8], [5]])).to(device)
    for steps in (1, 2, 5):
        plain, captured = (
            flow.solve(noise, mu, mask, context, given, steps, guidance, solver, graph=graph) for graph in (False, True)
        )
        torch.testing.assert_close(captured, plain, atol=1e-5, rtol=1e-5)


def test_noise_of_a_shorter_clip_is_a_prefix():
    assert torch.equal(clip_noise(40, 136, seed=3)[:26], clip_noise(26, 136, seed=3))
    assert not torch.equal(clip_noise(26, 136, seed=3), clip_noise(26, 136, seed=4))


def test_bad_settings_are_refused():
    flow = small_flow()
    noise, mu = torch.randn(1, 8, 4), torch.randn(1, 8, 6)
    with pytest.raises(ValueError, match="at least one step"):
        flow.solve(noise, mu, steps=0)
    with pytest.raises(ValueError, match="euler"):
        flow.solve(noise, mu, solver="heun")
    with pytest.raises(UserError, match="time_sampling"):
        FlowConfig(time_sampling="cosine")


@torch.no_grad()
def test_beside_the_gaussian_skip_the_estimator_learns_what_is_left():
    """An estimator of zero then has the velocity that no other beats for independent normal latents and noise."""
    torch.manual_seed(0)
    flow = FlowDecoder(replace(SMALL, gaussian_skip=True), latent_dim=4, condition_dim=6).eval()
    for parameter in flow.estimator.output.parameters():
        torch.nn.init.zeros_(parameter)
    x, noise, mu = torch.randn(400, 25, 4), torch.randn(400, 25, 4), torch.zeros(400, 25, 6)
    mask, no_context = torch.ones(400, 25, dtype=torch.bool), torch.zeros(400, dtype=torch.long)
    for t in (0.0, 0.3, 0.5, 0.9):
        y = (1 - t) * noise + t * x
        best = ((x - noise) * y).mean() / y.square().mean() * y  # by least squares
        least = (best - (x - noise)).square().mean()
        loss = flow.loss(x, mu, mask, no_context, torch.full((400,), t), noise)
        assert loss == pytest.approx(float(least), rel=0.01), t
    assert flow.solve(noise, mu, steps=1, guidance=1.0).abs().max() < 1e-6  # the mean of what no conditioning tells


@torch.no_grad()
def test_one_step_is_a_regression_whatever_the_noise():
    torch.manual_seed(1)
    flow = FlowDecoder(replace(SMALL, gaussian_skip=True), latent_dim=4, condition_dim=6).eval()
    flow.estimator.input.conv.weight.data[:, :4] = 0.0  # as trained at t = 0, where the noise tells nothing
    mu = torch.randn(2, 8, 6)
    a, b = (flow.solve(torch.randn(2, 8, 4), mu, steps=1, guidance=1.0) for _ in range(2))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert a.abs().max() > 0.01


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_flow_times_is_the_start(share):
    flow = FlowDecoder(replace(SMALL, start_share=share), 4, 6)
    times = flow.sample_times(4000, torch.Generator().manual_seed(5))
    assert (times == 0).float().mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_flow_times_are_a_function_of_the_generator(sampling):
    flow = FlowDecoder(FlowConfig(layers=1, heads=1, head_dim=8, time_sampling=sampling), 4, 6)
    draw = [flow.sample_times(2000, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].min() > 0 and draw[0].max() < 1 and abs(draw[0].mean() - 0.5) < 0.03
    spread = draw[0].std().item()
    assert spread < 0.25 if sampling == "logit_normal" else spread > 0.27
