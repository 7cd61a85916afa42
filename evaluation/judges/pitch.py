"""Pitch by CREPE (Kim et al. 2018), the tiny model of the package torchcrepe; without the dither of its decoders."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from evaluation.metrics.packages import require

PITCH_VERSION = "torchcrepe tiny, 50 to 550 Hz, 20 ms, voiced from 0.5, at most 50 dB below the loudest, 2"
_RATE, _HOP, _WINDOW = 16_000, 320, 1024  # every 20 ms, which takes half the time of every 10 ms
_LOWEST, _HIGHEST = 50.0, 550.0  # Hz
_VOICED = 0.5  # of the network's confidence
_QUIET = 50.0  # dB below the clip's loudest frame: no voice is heard there
_CENTS = 20 * np.arange(360) + 1997.3794084376191  # of each bin, above 10 Hz
_NEAR = 4  # bins on either side of the best one that are averaged


def pitch_track(waveform: np.ndarray) -> list[float]:
    """F0 in Hz of each 20 ms of a waveform (n,) at 24 kHz; 0 where it is unvoiced, [] for silence.

    Raises:
        Absent: The package is not installed.
    """
    audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3) if len(waveform) else np.zeros(0)
    if not np.any(audio):
        return []
    torch, torchcrepe = _library()
    samples = torch.from_numpy(audio.astype(np.float32))[None]
    with torch.inference_mode():
        frames = torch.cat(list(torchcrepe.preprocess(samples, _RATE, _HOP, batch_size=1024, device="cpu")))
        level = _levels(audio, len(frames))
        heard = level > level.max() - _QUIET
        found = np.zeros((len(frames), len(_CENTS)))
        found[heard] = torchcrepe.infer(frames[heard], "tiny").numpy()  # (T, 360) confidences
    hz = 10 * 2 ** (_CENTS / 1200)
    found = np.where((hz >= _LOWEST) & (hz <= _HIGHEST), found, 0.0)
    best = found.argmax(axis=1)
    near = np.abs(np.arange(360)[None] - best[:, None]) <= _NEAR
    weights = found * near
    cents = (weights * _CENTS).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
    voiced = found.max(axis=1) > _VOICED
    return np.where(voiced, 10 * 2 ** (cents / 1200), 0.0).round(3).tolist()


def _levels(audio: np.ndarray, frames: int) -> np.ndarray:
    """Level of each frame in dB, (T,)."""
    padded = np.pad(audio, (_WINDOW // 2, _WINDOW // 2 + _HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:frames]
    return 10 * np.log10((windows**2).mean(axis=1) + 1e-12)


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    require("pitch", "torchcrepe")
    import torch
    import torchcrepe

    return torch, torchcrepe
