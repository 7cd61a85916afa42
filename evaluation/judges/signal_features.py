"""Signal measurements: one explicit feature vector per waveform, numpy only, nothing learned.

The signal classifier (`pool.py`) tells classes and instruments apart by these numbers. They are measured on originals
and on generated audio alike, so they avoid what a codec changes without changing the sound: absolute level, phase, the
faintest frames, the fine structure of harmonics.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dct

from evaluation.metrics.spectra import HOP, RATE, WINDOW, mel_filters, power_spectrogram

FEATURES_VERSION = 1  # raise it with any change of a number below
NUM_FEATURES = 96
FRAME_RATE = RATE / HOP  # frames per second
MODULATION_EDGES = (0.5, 2.0, 4.0, 8.0, 14.0, 26.0, 45.0)  # Hz
_BANDS = 32
_CEPSTRA = 16
_PITCH_WINDOW, _PITCH_HOP = 2048, 480  # samples


def signal_features(waveform: np.ndarray) -> np.ndarray:
    """The measurements of a waveform.

    Args:
        waveform: (n,) float at 24 kHz, of any length; silence and NaN give finite numbers.

    Returns:
        (F,) float64.
    """
    waveform = np.nan_to_num(np.asarray(waveform, dtype=np.float32))
    if len(waveform) < 2 * WINDOW:
        waveform = np.pad(waveform, (0, 2 * WINDOW - len(waveform)))
    power = power_spectrogram(waveform) + 1e-12  # (513, T)
    energy = 10 * np.log10(power.sum(axis=0))  # (T,) dB
    active = energy > energy.max() - 35  # the audible frames
    mel = mel_filters(_BANDS) @ power  # (32, T)
    parts = [
        _timbre(mel, active),
        _spectral_shape(power, active),
        _envelope(energy, active, mel),
        _modulation(mel),
        _pitch(waveform),
    ]
    return np.nan_to_num(np.concatenate(parts).astype(np.float64))


def fundamental(waveform: np.ndarray, low: float = 50.0, high: float = 1600.0) -> tuple[np.ndarray, np.ndarray]:
    """Fundamental frequency by normalised autocorrelation, every 20 ms.

    The earliest peak within 90 % of the highest wins, so that a multiple of the period is not taken for the period.

    Args:
        waveform: (n,) float at 24 kHz.
        low: Lowest frequency that is looked for, Hz.
        high: Highest one.

    Returns:
        (T,) Hz and (T,) periodicity in [0, 1].
    """
    size, hop = _PITCH_WINDOW, _PITCH_HOP
    padded = np.pad(np.asarray(waveform, dtype=np.float32), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]  # (T, 2048)
    frames = frames - frames.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(frames, 2 * size, axis=1)) ** 2
    correlation = np.fft.irfft(spectrum, axis=1)[:, :size]
    # Energy of the two overlapping parts at every lag, so that long lags are not punished for their shorter overlap.
    squares = np.cumsum(frames.astype(np.float64) ** 2, axis=1)
    total = squares[:, -1:]
    head, tail = squares[:, ::-1], total - np.concatenate([np.zeros_like(total), squares[:, :-1]], axis=1)
    nsdf = 2 * correlation / np.maximum(head + tail, 1e-9)  # (T, 2048)
    first, last = int(RATE / high), min(int(RATE / low), size - 2)
    inside = nsdf[:, first : last + 1]
    peak = (inside >= nsdf[:, first - 1 : last]) & (inside > nsdf[:, first + 1 : last + 2]) & (inside > 0)
    height = np.where(peak, inside, 0.0)
    best = height.max(axis=1)
    index = np.argmax(height >= 0.9 * best[:, None], axis=1)  # the earliest that is high enough
    rows = np.arange(len(nsdf))
    lag = index + first
    before, at, after = nsdf[rows, lag - 1], nsdf[rows, lag], nsdf[rows, lag + 1]
    bend = before - 2 * at + after
    shift = np.where(np.abs(bend) > 1e-9, 0.5 * (before - after) / np.where(bend == 0, 1, bend), 0.0)
    return RATE / (lag + np.clip(shift, -0.5, 0.5)), np.clip(best, 0, 1)


def _timbre(mel: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Mean spectrum (cepstrum, without the level) and how much each cepstral coefficient moves."""
    decibels = 10 * np.log10(mel[:, active])
    decibels = np.maximum(decibels, decibels.max() - 60)  # below lies a codec's noise, or digital silence
    cepstrum = dct(decibels, axis=0, norm="ortho")[1 : _CEPSTRA + 1]  # (16, active)
    moves = np.abs(np.diff(cepstrum, axis=1)).mean(axis=1) if cepstrum.shape[1] > 1 else np.zeros(_CEPSTRA)
    return np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1), moves])


def _spectral_shape(power: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Centroid, bandwidth, roll-off (85 %), flatness, tonal peakiness: mean and deviation over active frames."""
    bins = np.arange(power.shape[0]) * RATE / WINDOW
    p = power[:, active]
    share = p / p.sum(axis=0)
    centroid = bins @ share
    width = np.sqrt(np.maximum((bins[:, None] - centroid) ** 2 * share, 0).sum(axis=0))
    rolloff = bins[np.argmax(np.cumsum(share, axis=0) >= 0.85, axis=0)]
    audible = np.maximum(p, p.max(axis=0) * 1e-6)
    flatness = np.log(audible).mean(axis=0) - np.log(audible.mean(axis=0))
    peakiness = np.log(np.sort(share, axis=0)[-5:].sum(axis=0))
    rows = np.stack([np.log(centroid + 50), np.log(width + 50), np.log(rolloff + 50), flatness, peakiness])
    return np.concatenate([rows.mean(axis=1), rows.std(axis=1)])


def _envelope(energy: np.ndarray, active: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """The level over time: activity, crest, onsets per second and their regularity, attack time, decay."""
    decibels = 10 * np.log10(np.maximum(mel, mel.max() * 1e-5))
    flux = np.maximum(np.diff(decibels, axis=1, prepend=decibels[:, :1]), 0).mean(axis=0)
    onsets = _peaks(flux, max(2.0, 0.35 * flux.max()), gap=int(0.06 * FRAME_RATE))
    intervals = np.diff(onsets) / FRAME_RATE if len(onsets) > 1 else np.array([len(energy) / FRAME_RATE])
    attacks, decays = [], []
    smooth = np.convolve(energy, np.ones(3) / 3, mode="same")
    ends = [*onsets[1:], len(energy)][: len(onsets)]
    for start, end in zip(onsets, ends, strict=True):
        stretch = smooth[max(0, start - 3) : end]
        top = int(stretch[: int(0.4 * FRAME_RATE)].argmax())
        reached = np.flatnonzero(stretch[: top + 1] <= stretch[top] - 3)
        attacks.append((top - reached[-1] if len(reached) else top) / FRAME_RATE)
        fall = stretch[top : top + int(0.3 * FRAME_RATE)]
        decays.append((fall[0] - fall[-1]) / max(len(fall) / FRAME_RATE, 0.02))
    loud = energy[active]
    return np.array(
        [
            active.mean(),
            loud.std(),
            energy.max() - loud.mean(),
            np.log(len(onsets) / (len(energy) / FRAME_RATE) + 0.3),
            np.log(np.median(intervals)),
            intervals.std() / intervals.mean(),
            np.log(np.median(attacks) + 0.01) if attacks else 0.0,
            np.median(decays) / 50 if decays else 0.0,
            flux.mean(),
            np.log(flux.max() + 0.1),
            (energy[-len(energy) // 4 :].mean() - energy[: len(energy) // 4].mean()) / 10,
        ]
    )


def _modulation(mel: np.ndarray) -> np.ndarray:
    """Modulation spectrum: share of the envelope's movement at 0.5 to 45 Hz, over all bands and in three regions."""
    decibels = 10 * np.log10(np.maximum(mel, mel.max() * 1e-5))
    groups = [decibels, decibels[: _BANDS // 3], decibels[_BANDS // 3 : 2 * _BANDS // 3], decibels[2 * _BANDS // 3 :]]
    length = max(decibels.shape[1], 256)
    hz = np.fft.rfftfreq(length, 1 / FRAME_RATE)
    parts = []
    for group in groups:
        curve = group.mean(axis=0)
        curve = (curve - curve.mean()) * np.hanning(len(curve))
        spectrum = np.abs(np.fft.rfft(curve, length)) ** 2 / len(curve)
        edges = zip(MODULATION_EDGES[:-1], MODULATION_EDGES[1:], strict=True)
        parts.append([np.log(spectrum[(hz >= a) & (hz < b)].mean() + 0.1) for a, b in edges])
    return np.concatenate(parts)


def _pitch(waveform: np.ndarray) -> np.ndarray:
    """Where the pitch lies and how far it moves, in loud frames that have one.

    How periodic a sound is, and the levels of its single harmonics, tell originals apart best of all, but mean nothing
    after a codec that keeps the sound but roughens it: they are left out.
    """
    pitch, periodicity = fundamental(waveform)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, _PITCH_WINDOW // 2), _PITCH_WINDOW)[::_PITCH_HOP]
    level = 10 * np.log10((frames**2).sum(axis=1) + 1e-9)
    pitched = (periodicity > 0.6) & (level > level.max() - 35)
    if pitched.sum() < 2:
        return np.array([6.0, 6.0, 0.0])
    octaves = np.log(pitch[pitched])
    return np.array([np.median(octaves), np.percentile(octaves, 90), np.log(octaves.std() + 0.01)])


def _peaks(curve: np.ndarray, threshold: float, gap: int) -> list[int]:
    """Indices of local maxima above the threshold, the higher one where two are closer than `gap`."""
    inner = np.flatnonzero((curve[1:-1] >= curve[:-2]) & (curve[1:-1] > curve[2:]) & (curve[1:-1] > threshold)) + 1
    kept: list[int] = []
    for index in inner[np.argsort(-curve[inner], kind="stable")]:
        if all(abs(index - other) >= gap for other in kept):
            kept.append(int(index))
    return sorted(kept)
