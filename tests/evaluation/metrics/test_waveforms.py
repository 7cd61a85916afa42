"""Metrics of waveforms: known answers, limits, and values that must not drift."""

import numpy as np
import pytest

from evaluation.metrics.registry import METRICS

RNG = np.random.default_rng(7)
TIME = np.arange(48_000) / 24_000
SPEECH = (
    sum(np.sin(2 * np.pi * 140 * k * TIME) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 3 * TIME)) * 0.1
).astype(np.float32)
NOISE = RNG.standard_normal(48_000).astype(np.float32)


def value(name, prediction, reference=SPEECH):
    return METRICS[name].score([prediction], [reference]).value


def test_the_former_metrics_have_their_former_values():
    rng = np.random.default_rng(0)
    a = (0.1 * rng.standard_normal(24_000)).astype(np.float32)
    b = a + (0.05 * rng.standard_normal(24_000)).astype(np.float32)
    assert value("mel_distance", b, a) == pytest.approx(1.5633739233, abs=1e-6)
    assert value("stoi", b, a) == pytest.approx(0.7946700608, abs=1e-6)


@pytest.mark.parametrize("name", ["stoi", "estoi", "si_sdr", "stft_distance", "mel_distance"])
def test_more_noise_is_worse_and_the_same_is_best(name):
    found = [value(name, SPEECH + a * NOISE) for a in (0, 0.005, 0.02, 0.1)]
    assert found == sorted(found, reverse=METRICS[name].direction == "higher")
    assert found[0] == pytest.approx({"stoi": 1, "estoi": 1, "si_sdr": 100}.get(name, 0), abs=1e-3)
    assert METRICS[name].score([None], [SPEECH]).n == 0


def test_si_sdr_is_the_ratio_of_energies_whatever_the_scale():
    noise = NOISE - NOISE.mean()
    clean = SPEECH - SPEECH.mean()
    noise -= (noise @ clean) / (clean @ clean) * clean  # at right angles
    noise *= np.linalg.norm(clean) / np.linalg.norm(noise) / 10  # 20 dB below
    for gain in (1.0, 0.3, -2.0):
        assert value("si_sdr", gain * (clean + noise)) == pytest.approx(20, abs=0.01)
    assert value("si_sdr", np.zeros(48_000, np.float32)) == -50
    assert METRICS["si_sdr"].score([SPEECH], [np.zeros(48_000, np.float32)]).n == 0


def test_the_stft_distance_of_half_the_level_can_be_said_beforehand():
    """Spectral convergence 1/2, and log 2 in every bin that is loud enough to count."""
    loud = NOISE[:24_000]
    assert value("stft_distance", 0.5 * loud, loud) == pytest.approx(0.5 + np.log(2), abs=0.01)
    assert METRICS["stft_distance"].score([loud], [np.zeros(24_000, np.float32)]).n == 0


def test_lost_brightness_costs_more_than_level_in_few_bins():
    spectrum = np.fft.rfft(NOISE)
    spectrum[len(spectrum) // 2 :] = 0
    assert value("stft_distance", np.fft.irfft(spectrum).astype(np.float32), NOISE) > 1


@pytest.mark.parametrize("name", ["stoi", "estoi"])
def test_clips_that_are_too_short_do_not_count(name):
    assert METRICS[name].score([SPEECH[:4_000]], [SPEECH[:4_000]]).n == 0
