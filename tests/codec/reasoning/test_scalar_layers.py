"""Principal components: the best linear code, also under noise."""

import math

import pytest
import torch

from codec.reasoning.scalar_layers import LATENT_DEVIATION, PrincipalComponents, mel_weights


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_principal_components_are_the_best_linear_code():
    """Signals that live in as many directions as there are coefficients come back exactly."""
    principal = PrincipalComponents(bands=6, latents=3, factor=2)
    basis = torch.linalg.qr(noise(12, 3))[0].T
    codes = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 2.0, 1.0])
    vectors = (codes @ basis + noise(1, 12, seed=2)).view(4000, 6, 2)
    assert not principal.down(vectors).any() and not principal.up(torch.ones(1, 3, 5)).any()  # nothing yet
    principal.fit(vectors, torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0]))  # whatever counts most: all of it comes back
    signal = vectors[:50].movedim(0, 1).reshape(1, 6, 100)  # 50 stretches of 2 frames, one after the other
    coefficients = principal.down(signal)
    assert coefficients.shape == (1, 3, 50)
    torch.testing.assert_close(principal.up(coefficients), signal, atol=1e-5, rtol=0)
    every = principal.down(vectors)[..., 0]  # (N, 3)
    torch.testing.assert_close(every.std(0), torch.full((3,), LATENT_DEVIATION), atol=1e-3, rtol=0)


@torch.no_grad()
def test_noise_on_the_coefficients_costs_less_than_on_equalised_components():
    deviation = torch.tensor([5.0, 2.0, 1.0, 0.5])
    vectors = (noise(20000, 4) / 0.3 * deviation)[:, :, None]
    principal = PrincipalComponents(bands=4, latents=4, factor=1)
    principal.fit(vectors, torch.ones(4))
    cost = principal.decoder.square().sum()  # of unit noise on every coefficient
    equalised = deviation.square().sum() / LATENT_DEVIATION**2
    assert cost == pytest.approx(float(deviation.sum() ** 2 / 4 / LATENT_DEVIATION**2), rel=0.15)
    assert cost < 0.75 * equalised


@torch.no_grad()
def test_the_bands_that_count_more_are_kept():
    """Of four bands of equal power, two coefficients keep the two that weigh most."""
    vectors = noise(20000, 4)[:, :, None]
    principal = PrincipalComponents(bands=4, latents=2, factor=1)
    principal.fit(vectors, torch.tensor([0.5, 2.0, 0.5, 2.0]))
    signal = vectors[:500, :, 0].T[None]
    left = (principal.up(principal.down(signal)) - signal).square().mean((0, 2)) / signal.square().mean((0, 2))
    assert left[[1, 3]].max() < 1e-3 and left[[0, 2]].min() > 0.9


def test_mel_weights_are_those_of_equal_steps_on_the_mel_scale():
    weights = mel_weights(481, 24_000)
    assert weights.square().mean() == pytest.approx(1.0, abs=1e-5)
    share = weights.square().cumsum(0) / weights.square().sum()
    assert share[160] == pytest.approx(math.log(1 + 4000 / 700) / math.log(1 + 12_000 / 700), abs=0.01)  # below 4 kHz
