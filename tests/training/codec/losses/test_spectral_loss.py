"""Spectral loss: what it is zero for, what it hears, masks, gradients."""

import pytest
import torch

from codec.layers.spectrogram import LogMagnitudeSpectrogram
from training.codec.losses.spectral_loss import LogMagnitudeLoss, MultiResolutionSpectralLoss


@pytest.fixture(scope="module")
def loss():
    return MultiResolutionSpectralLoss()


def sine(frequency: float, samples: int = 9600, amplitude: float = 0.5) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(samples) / 24000)[None]


def test_zero_for_equal_sounds_only(loss):
    clip = sine(440)
    total, terms = loss(clip, clip)
    assert float(total) == pytest.approx(0, abs=1e-5) and set(terms) == {"mel", "magnitude", "convergence"}
    assert float(loss(clip, sine(450))[0]) > 0.05


def test_hears_magnitudes_and_not_the_sign_of_the_wave(loss):
    clip = sine(440)
    assert float(loss(-clip, clip)[0]) == pytest.approx(0, abs=1e-5)


def test_grows_with_distance(loss):
    clip = sine(440)
    near, far = (float(loss(clip * gain, clip)[0]) for gain in (0.9, 0.5))
    assert 0 < near < far


def test_level_difference_in_nepers(loss):
    """A loud broadband sound at half its amplitude is ln 2 away in every band."""
    clip = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0))
    _, terms = loss(clip * 0.5, clip)
    assert float(terms["magnitude"]) == pytest.approx(0.6931, abs=0.06)
    assert float(terms["convergence"]) == pytest.approx(0.5, abs=1e-3)


def test_padding_changes_nothing(loss):
    one, other = sine(300, 5000), sine(600, 5000)
    alone, _ = loss(one, other)
    padded = [torch.nn.functional.pad(x, (0, 4000)) for x in (one, other)]
    batched, _ = loss(*padded, lengths=torch.tensor([5000]))
    assert float(batched) == pytest.approx(float(alone), rel=1e-4)
    unmasked, _ = loss(*padded)
    assert abs(float(unmasked) - float(alone)) > 0.01


def test_gradients_are_finite_on_silence(loss):
    predicted = torch.zeros(1, 4800, requires_grad=True)
    loss(predicted, torch.zeros(1, 4800))[0].backward()
    assert predicted.grad.isfinite().all()
    predicted.grad = None
    loss(predicted, sine(440, 4800))[0].backward()
    assert predicted.grad.isfinite().all()


def test_descends_to_the_target():
    """Amplitude and frequency mixture are found by gradient descent on the loss alone."""
    loss = MultiResolutionSpectralLoss(fft_sizes=(512,), mel_bands=(40,))
    basis = torch.cat([sine(f, 4800, 1.0) for f in (250, 500, 1000, 2000)])
    wanted = torch.tensor([[0.5, 0.05, 0.2, 0.1]])
    found = torch.full((1, 4), 0.2, requires_grad=True)
    optimiser = torch.optim.Adam([found], lr=0.02)
    for _ in range(80):
        optimiser.zero_grad()
        loss(found @ basis, wanted @ basis)[0].backward()
        optimiser.step()
    torch.testing.assert_close(found.detach().abs(), wanted, atol=0.03, rtol=0)


def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="differ in shape"):
        loss(sine(440, 100), sine(440, 101))


def test_log_magnitudes_zero_for_equal_frames_and_larger_for_loud_bins():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 0)
    loss = LogMagnitudeLoss(spectrogram, 24000, mel_weight=0.0)
    quiet, loud = torch.full((1, 481, 4), -2.0), torch.full((1, 481, 4), 3.0)
    assert float(loss(quiet, quiet)[0]) == 0
    assert float(loss(quiet + 0.5, quiet)[0]) == pytest.approx(0.5)
    assert float(loss(loud + 0.5, loud)[0]) == pytest.approx(1.5)


def test_log_magnitudes_mel_term_in_nepers():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 0)
    clip = torch.randn(1, 4800, generator=torch.Generator().manual_seed(0))
    both = (spectrogram.analyse(clip), spectrogram.analyse(clip * 0.5))
    _, terms = LogMagnitudeLoss(spectrogram, 24000)(*both)
    assert float(terms["mel"]) == pytest.approx(0.6931, abs=0.03)


def test_log_magnitudes_beyond_a_clip_do_not_count():
    loss = LogMagnitudeLoss(LogMagnitudeSpectrogram(960, 240, 0), 24000)
    predicted, target = torch.randn(2, 481, 6), torch.randn(2, 481, 6)
    before, _ = loss(predicted, target, torch.tensor([6, 2]))
    predicted[1, :, 2:] += 3
    assert float(loss(predicted, target, torch.tensor([6, 2]))[0]) == pytest.approx(float(before))
    assert float(loss(predicted, target)[0]) > float(before)
