"""Key and tempo of music, from chroma and onset strength (librosa): nothing that is learned."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from evaluation.metrics.packages import require
from evaluation.metrics.spectra import RATE

KEY_VERSION = "constant-Q chroma (librosa), profiles of Krumhansl and Kessler, 1"
TEMPO_VERSION = "onset strength (librosa), 40 to 240 beats a minute alike, 1"
_SHORTEST = RATE // 2  # samples

# How well each of twelve semitones above the tonic fits a key (Krumhansl and Kessler 1982).
_PROFILES = np.array([
    [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],  # major
    [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],  # minor
])  # fmt: skip


def key_of(waveform: np.ndarray) -> list[float]:
    """The key of a waveform (n,) at 24 kHz: semitones of the tonic above C, and 0 for major, 1 for minor.

    [] for silence and for less than half a second.

    Raises:
        Absent: librosa is not installed.
    """
    audio = _audible(waveform)
    if audio is None:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the lowest notes' windows are longer than a short clip
        chroma = _librosa().feature.chroma_cqt(y=audio, sr=RATE, n_octaves=6).mean(axis=1)  # (12,), from C
    rotated = np.stack([np.roll(chroma, -tonic) for tonic in range(12)])  # (12, 12)
    likeness = np.array([[np.corrcoef(row, profile)[0, 1] for profile in _PROFILES] for row in rotated])
    tonic, mode = np.unravel_index(int(np.argmax(np.nan_to_num(likeness))), likeness.shape)
    return [float(tonic), float(mode)]


def tempo_of(waveform: np.ndarray) -> list[float]:
    """Beats per minute of a waveform (n,) at 24 kHz; [] for silence and for less than half a second.

    Raises:
        Absent: librosa is not installed.
    """
    audio = _audible(waveform)
    if audio is None:
        return []
    librosa = _librosa()
    from scipy.stats import uniform

    onsets = librosa.onset.onset_strength(y=audio, sr=RATE, hop_length=240)
    found = librosa.feature.tempo(onset_envelope=onsets, sr=RATE, hop_length=240, prior=uniform(40, 200))
    return [float(found[0])]


def _audible(waveform: np.ndarray) -> np.ndarray | None:
    audio = np.nan_to_num(np.asarray(waveform, dtype=np.float32))
    return audio if len(audio) >= _SHORTEST and np.abs(audio).max() > 1e-4 else None


@lru_cache(maxsize=1)
def _librosa() -> Any:
    require("key and tempo", "librosa")
    import librosa

    return librosa
