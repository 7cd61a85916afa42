"""Signal measurements of tones, noise and odd sounds."""

import numpy as np
import pytest

from evaluation.judges.signal_features import fundamental, signal_features
from tests.factories.evaluation import RATE, voice


@pytest.mark.parametrize("hertz", [60.0, 110.0, 220.0, 440.5, 1000.0])
def test_fundamental_of_a_rich_tone(hertz):
    time = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8) if hertz * k < 11_000)
    pitch, periodicity = fundamental(tone)
    assert np.median(pitch) == pytest.approx(hertz, rel=0.01) and np.median(periodicity) > 0.9


def test_noise_is_not_periodic():
    assert np.median(fundamental(np.random.default_rng(0).standard_normal(RATE))[1]) < 0.5


@pytest.mark.parametrize(
    "wave", [np.zeros(0), np.zeros(1), np.zeros(RATE), np.full(500, np.nan), np.ones(RATE), np.eye(1, 5000)[0]]
)
def test_features_of_odd_sounds_are_finite(wave):
    features = signal_features(wave)
    assert np.isfinite(features).all() and features.shape == signal_features(np.ones(10)).shape


def test_features_do_not_depend_on_level():
    wave = voice(np.random.default_rng(0), 1.0, high=True)
    assert signal_features(0.1 * wave) == pytest.approx(signal_features(wave), abs=0.05)
