"""Log-magnitude spectrograms and the phase search."""

import pytest
import torch

from codec.layers.spectrogram import LogMagnitudeSpectrogram


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_spectrogram_of_a_sine():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 16)
    time = torch.arange(24000) / 24000
    frames = spectrogram.analyse(torch.sin(2 * torch.pi * 1000 * time)[None])
    assert frames.shape == (1, 481, 100)
    amplitude = spectrogram.magnitudes(frames) * (2 / spectrogram.window.sum())
    assert amplitude[0, :, 50].argmax() == 40  # 1000 Hz / 25 Hz
    assert amplitude[0, 40, 50] == pytest.approx(1.0, abs=1e-3)


def test_spectrogram_inverts_its_own_transform():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 0)
    clip = noise(2, 4800)
    weight = spectrogram.overlap(torch.ones(2, 20))
    torch.testing.assert_close(spectrogram.invert(spectrogram.transform(clip), weight), clip, atol=1e-5, rtol=0)


@torch.no_grad()
def test_phase_search_makes_the_magnitudes_consistent():
    time = torch.arange(24000) / 24000
    clip = sum(torch.sin(2 * torch.pi * f * time * (1 + 0.05 * time)) for f in (220, 440, 660, 1320))[None] / 8

    def error(iterations: int) -> float:
        spectrogram = LogMagnitudeSpectrogram(960, 240, iterations)
        found = spectrogram.transform(spectrogram.synthesise(spectrogram.analyse(clip))).abs()
        wanted = spectrogram.transform(clip).abs()
        return float((found - wanted).norm() / wanted.norm())

    assert error(32) < 0.15 and error(32) < 0.5 * error(0)


def test_silence_stays_silent():
    spectrogram = LogMagnitudeSpectrogram(960, 240, 4)
    waveform = spectrogram.synthesise(spectrogram.analyse(torch.zeros(1, 4800)))
    assert waveform.abs().max() < 1e-4
