"""Discriminator and its losses."""

import torch

from training.codec.losses.discriminator import (
    Discriminator,
    DiscriminatorOutput,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)


def opinion(value: float) -> DiscriminatorOutput:
    return DiscriminatorOutput(torch.full((2, 1, 3, 3), value), [torch.full((2, 4), value)])


def test_hinge_losses_by_hand():
    real, fake = [opinion(2.0), opinion(0.5)], [opinion(-3.0), opinion(0.25)]
    assert float(discriminator_loss(real, fake)) == (0 + 0 + 0.5 + 1.25) / 2
    assert float(adversarial_loss(fake)) == (4 + 0.75) / 2
    assert float(feature_matching_loss(real, fake)) == (5 / 2 + 0.25 / 0.5) / 2


def test_feature_matching_teaches_the_fake_side_only():
    discriminator = Discriminator(fft_sizes=(256,), channels=4)
    real, fake = (torch.randn(1, 2000, requires_grad=True) for _ in range(2))
    feature_matching_loss(discriminator(real), discriminator(fake)).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None or not real.grad.any()


def test_any_length_and_one_opinion_per_resolution():
    discriminator = Discriminator(fft_sizes=(128, 512), channels=4)
    for samples in (1, 960, 5001):
        opinions = discriminator(torch.randn(2, samples))
        assert len(opinions) == 2 and all(len(o.features) == 5 and o.logits.shape[0] == 2 for o in opinions)


def test_learns_to_tell_noise_from_tones():
    torch.manual_seed(0)
    discriminator = Discriminator(fft_sizes=(256,), channels=4)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    for _ in range(30):
        phase = torch.rand(4, 1) * 6
        tones = torch.sin(phase + torch.arange(2400) * torch.rand(4, 1))
        optimiser.zero_grad()
        discriminator_loss(discriminator(tones), discriminator(0.7 * torch.randn(4, 2400))).backward()
        optimiser.step()
    with torch.no_grad():
        tone = discriminator(torch.sin(0.3 * torch.arange(2400))[None])[0].logits.mean()
        noise = discriminator(0.7 * torch.randn(1, 2400))[0].logits.mean()
    assert tone > 0.5 > -0.5 > noise
