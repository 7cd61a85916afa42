"""The metric of the flow's errors: what is heard more counts more, and the best velocity stays the best."""

from dataclasses import replace

import pytest
import torch

from codec.reasoning.config import FlowConfig
from codec.reasoning.flow_decoder import FlowDecoder
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from tests.factories.codec import SMALL_SCALAR
from training.codec.losses.mel_metric import latent_frames, mel_metric


class Crops:
    """Batches of noises of two lengths, as AudioCrops gives them."""

    class Noise:
        def __init__(self, length, seed):
            self.length, self.seed = length, seed

        def load(self):
            return 0.1 * torch.randn(self.length, generator=torch.Generator().manual_seed(self.seed))

    def batch(self, index):
        return [self.Noise(9_600, 2 * index), self.Noise(4_000, 2 * index + 1)]


def test_an_error_counts_by_what_it_changes_in_the_spectrum():
    """Latents whose first channel moves a spectrum three times as far as the second, and whose third moves nothing."""
    torch.manual_seed(0)
    latents = torch.randn(4000, 3)
    spectra = torch.stack([3 * latents[:, 0], latents[:, 1]], dim=1)[:, :, None] + 5.0
    root = mel_metric(latents, spectra, share=1.0)
    lengths = root.square().sum(0).sqrt()
    assert lengths[0] / lengths[1] == pytest.approx(3.0, rel=0.02)
    assert lengths[2] < 0.1
    assert root.square().sum() == pytest.approx(3.0, rel=1e-4)  # the scale of the loss stays


def test_a_share_of_nothing_counts_every_direction_alike():
    latents = torch.randn(100, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mel_metric(latents, latents @ torch.randn(4, 7), share=0.0), torch.eye(4))


def test_the_best_velocity_is_the_same_under_every_metric():
    """Gradients of the two losses vanish together: at the conditional mean, whatever counts more."""
    torch.manual_seed(2)
    flow = FlowDecoder(replace(FlowConfig(), layers=1, heads=1, head_dim=8, gaussian_skip=True), 4, 2)
    for parameter in flow.estimator.output.parameters():
        torch.nn.init.zeros_(parameter)
    bias = flow.estimator.output.linear.bias
    x, noise = torch.randn(3000, 4, 4) + torch.tensor([1.0, -2.0, 0.5, 0.0]), torch.randn(3000, 4, 4)
    mask, none = torch.ones(3000, 4, dtype=torch.bool), torch.zeros(3000, dtype=torch.long)
    root = torch.tensor([[2.0, 0.3, 0, 0], [0.3, 1.0, 0, 0], [0, 0, 0.4, 0.1], [0, 0, 0.1, 0.2]])
    with torch.no_grad():
        bias.copy_(x.mean((0, 1)))  # beside the skip, which takes the noise away
    for metric in (None, root):
        flow.zero_grad()
        loss = flow.loss(x, torch.zeros(3000, 4, 2), mask, none, torch.zeros(3000), noise, metric)
        loss.backward()
        assert bias.grad.abs().max() < 1e-4, metric


def test_frames_are_those_of_the_clips_alone():
    torch.manual_seed(3)
    scalar = ScalarAutoencoder(SMALL_SCALAR).eval()
    frames = list(latent_frames(scalar, Crops(), batches=3))
    assert len(frames) == 3
    for latents, spectra in frames:
        assert len(latents) == len(spectra) == 10 + 5  # of 9,600 and 4,000 samples, 960 a frame
        assert spectra.shape[1:] == (481, 4)
        assert latents.isfinite().all()
        assert spectra.isfinite().all()
