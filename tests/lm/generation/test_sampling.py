"""Sampling: distribution, top-k, noise that belongs to the request."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lm.generation.sampling import Sampling, SamplingForm, request_noise, sample
from lm.generation.settings import GenerationSettings


def drawn(logits, settings, uniform, rounded=False):
    """One id per row with these settings, as text is drawn."""
    sampling = Sampling(len(logits), ("text",), logits.device)
    sampling.set(settings, SamplingForm.of(settings, rounded, audio=False))
    return sample(logits, uniform, sampling.temperature[:, 0], sampling.form.width, sampling.top_k)


def test_frequencies_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0, float("-inf"), 0.5])
    settings = GenerationSettings(temperature=0.7, top_k=4)
    rng = 200_000
    uniform = torch.rand(rng, generator=torch.Generator().manual_seed(0))
    counts = drawn(logits.expand(rng, -1), settings, uniform).bincount(minlength=6) / rng
    kept = torch.tensor([0.0, 1.0, 2.0, float("-inf"), float("-inf"), 0.5])  # the four likeliest
    assert (counts - (kept / 0.7).softmax(-1)).abs().max() < 5e-3


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20),
    st.integers(0, 19),
    st.floats(0, 1, exclude_max=True, width=32),
    st.sampled_from([None, 1, 2, 50]),
    st.sampled_from([0.0, 0.1, 1.0, 5.0]),
)
def test_forbidden_ids_are_never_drawn(values, forbidden, uniform, top_k, temperature):
    logits = torch.tensor([values])
    forbidden %= len(values)
    logits[0, forbidden] = float("-inf")
    settings = GenerationSettings(top_k=top_k, temperature=temperature)
    made = drawn(logits, settings, torch.tensor([uniform])).item()
    assert 0 <= made < len(values) and made != forbidden


def test_greedy_takes_the_likeliest():
    logits = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    for settings in (GenerationSettings(top_k=1), GenerationSettings(temperature=0)):
        assert torch.equal(drawn(logits, settings, torch.rand(20)), logits.argmax(-1))


def test_every_row_can_have_its_own_settings():
    logits = torch.randn(60, 30, generator=torch.Generator().manual_seed(2))
    uniform = torch.rand(60, generator=torch.Generator().manual_seed(3))
    several = [GenerationSettings(temperature=t, top_k=k) for t, k in ((0.7, None), (1.3, 5), (0.0, 8), (0.9, 1))]
    temperature = torch.tensor([settings.temperature for settings in several]).repeat(15)
    top_k = torch.tensor([settings.top_k or 30 for settings in several]).repeat(15)
    together = sample(logits, uniform, temperature, None, top_k)
    for i, settings in enumerate(several):
        assert torch.equal(together[i::4], drawn(logits[i::4], settings, uniform[i::4]))


@given(st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 5))
def test_looking_at_more_ids_changes_none(top_k, temperature, seed):
    """Widths that are rounded up, so that one graph serves many settings, draw the same."""
    rng = torch.Generator().manual_seed(seed)
    logits, uniform = torch.randn(50, 33, generator=rng), torch.rand(50, generator=rng)
    settings = GenerationSettings(top_k=top_k, temperature=temperature)
    assert torch.equal(drawn(logits, settings, uniform), drawn(logits, settings, uniform, rounded=True))


def test_noise_depends_on_the_seed_alone():
    noise = request_noise([5, 6, 5], 10, 8, torch.device("cpu"))
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(request_noise([6], 10, 8, torch.device("cpu"))[0], noise[1])
    assert torch.equal(request_noise([6], 4, 8, torch.device("cpu"))[0], noise[1, :4])
    assert noise.min() >= 0 and noise.max() < 1
