"""Principal components: the best linear code, also under noise."""

import pytest
import torch

from codec.reasoning.scalar_layers import LATENT_DEVIATION, PrincipalComponents


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
    principal.fit(vectors)
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
    principal.fit(vectors)
    cost = principal.decoder.square().sum()  # of unit noise on every coefficient
    equalised = deviation.square().sum() / LATENT_DEVIATION**2
    assert cost == pytest.approx(float(deviation.sum() ** 2 / 4 / LATENT_DEVIATION**2), rel=0.15)
    assert cost < 0.75 * equalised
