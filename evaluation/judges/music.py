"""Key and tempo of music, from chroma and onset strength (librosa): nothing that is learned."""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
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
    chroma = _chroma(_librosa(), audio)
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
    return [_tempo(_librosa(), audio)]


def _audible(waveform: np.ndarray) -> np.ndarray | None:
    audio = np.nan_to_num(np.asarray(waveform, dtype=np.float32))
    return audio if len(audio) >= _SHORTEST and np.abs(audio).max() > 1e-4 else None


def _chroma(librosa: Any, audio: np.ndarray) -> np.ndarray:
    """(12,), from C."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the lowest notes' windows are longer than a short clip
        chroma: np.ndarray = librosa.feature.chroma_cqt(y=audio, sr=RATE, n_octaves=6).mean(axis=1)
    return chroma


def _tempo(librosa: Any, audio: np.ndarray) -> float:
    from scipy.stats import uniform

    onsets = librosa.onset.onset_strength(y=audio, sr=RATE, hop_length=240)
    found = librosa.feature.tempo(onset_envelope=onsets, sr=RATE, hop_length=240, prior=uniform(40, 200))
    return float(found[0])


@lru_cache(maxsize=1)
def _librosa() -> Any:
    require("key and tempo", "librosa")
    import librosa
    from filelock import FileLock

    # What it calls is compiled at the first call, and kept in files beside it. Processes that write those at once spoil
    # them (numba does not look), and whoever reads them later crashes: so one process at a time makes its first calls.
    user = os.getuid() if hasattr(os, "getuid") else 0
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    with FileLock(Path(tempfile.gettempdir()) / f"uniaudio-librosa-{user}.lock"):
        _chroma(librosa, noise)
        _tempo(librosa, noise)
    return librosa
