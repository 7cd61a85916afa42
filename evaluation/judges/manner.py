"""How something is said: how long it takes, how high the voice is, how loud. What an edit of a recording changes."""

from __future__ import annotations

import numpy as np

from evaluation.judges.signal_features import fundamental
from evaluation.metrics.spectra import RATE, power_spectrogram

MANNER_VERSION = "seconds, median F0 and level between the first and last frame within 35 dB of the loudest, 1"
_HOP, _WINDOW = 240, 720  # samples of a frame
_HEARD = 35.0  # dB below the loudest frame
_PERIODIC = 0.6  # of a frame that has a pitch
_LOWEST, _HIGHEST = 60.0, 450.0  # Hz


def manner(waveform: np.ndarray) -> list[float]:
    """Measurements of speech.

    Args:
        waveform: (n,) at 24 kHz.

    Returns:
        Seconds from the first to the last audible frame, and of that stretch the median F0 in Hz (0 where nothing is
        periodic) and the level in dB below full scale; [] for silence.
    """
    waveform = np.nan_to_num(np.asarray(waveform, dtype=np.float32))
    if not waveform.any():
        return []
    power = power_spectrogram(waveform, _WINDOW, _HOP).sum(axis=0)
    heard = np.flatnonzero(power > power.max() * 10 ** (-_HEARD / 10))
    first = max(0, heard[0] * _HOP - _WINDOW // 2)
    spoken = waveform[first : heard[-1] * _HOP + _WINDOW // 2]
    hz, periodicity = fundamental(spoken, _LOWEST, _HIGHEST)
    voiced = hz[periodicity > _PERIODIC]
    level = 10 * np.log10(float(np.mean(spoken.astype(np.float64) ** 2)) + 1e-12)
    return [len(spoken) / RATE, float(np.median(voiced)) if len(voiced) else 0.0, level]
