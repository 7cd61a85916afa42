"""What a sound is: a YAMNet of 521 AudioSet classes as an ONNX file, which is given with --tagger."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from codec.io.errors import UserError
from codec.io.third_party import said, third_party_errors
from evaluation.metrics.packages import require

TAGGER_FILE = "yamnet.onnx"
CLASSES = 521
_RATE, _WINDOW, _HOP, _FFT, _MELS = 16_000, 400, 160, 512, 64
_LOW, _HIGH, _OFFSET = 125.0, 7_500.0, 1e-3
_PATCH, _PATCH_HOP = 96, 48  # frames: 0.96 and 0.48 s


def tags(waveform: np.ndarray, folder: str) -> list[float]:
    """Probability of each class (521,), the mean over the windows of a waveform (n,) at 24 kHz; [] for no samples.

    Args:
        waveform: The sound.
        folder: Holds yamnet.onnx, which maps patches (N, 1, 96, 64) of log-mel frames to logits (N, 521).

    Raises:
        UserError: The file is damaged, or is another network.
    """
    if not len(waveform):
        return []
    audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3)
    network = _network(folder)
    with third_party_errors(Path(folder) / TAGGER_FILE, "is no such tagger", "give another folder with --tagger"):
        logits = network.run(None, {network.get_inputs()[0].name: patches(audio)})[0]
        if logits.ndim != 2 or logits.shape[1] != CLASSES:
            raise ValueError(f"it gives {logits.shape}")
    return (1 / (1 + np.exp(-logits.astype(np.float64).clip(-500, 500)))).mean(axis=0).tolist()


def tagger_version(folder: str | Path) -> str:
    """Name and identity of a tagger, for cache keys and results.

    Raises:
        Absent: onnxruntime is not installed.
        UserError: The folder holds no yamnet.onnx.
    """
    require("the tagger", "onnxruntime")
    path = Path(folder) / TAGGER_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a folder that holds a YAMNet as {TAGGER_FILE} with --tagger")
    return f"YAMNet {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}, 1"


def patches(audio: np.ndarray) -> np.ndarray:
    """(n,) at 16 kHz -> (N, 1, 96, 64) float32: log-mel magnitudes of 25 ms windows, cut into patches."""
    audio = np.pad(audio, (0, max(0, _WINDOW + (_PATCH - 1) * _HOP - len(audio))))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::_HOP] * window
    logs = np.log(np.abs(np.fft.rfft(frames, _FFT)) @ _bands() + _OFFSET)
    starts = range(0, len(logs) - _PATCH + 1, _PATCH_HOP)
    return np.stack([logs[s : s + _PATCH] for s in starts])[:, None].astype(np.float32)


@lru_cache(maxsize=1)
def _bands() -> np.ndarray:
    """(257, 64) triangles of equal height, evenly spaced in HTK's mel."""

    def mel(hz: Any) -> np.ndarray:
        return 1127 * np.log1p(np.asarray(hz) / 700)

    edges, bins = np.linspace(mel(_LOW), mel(_HIGH), _MELS + 2), mel(np.arange(_FFT // 2 + 1) * _RATE / _FFT)
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling))


@lru_cache(maxsize=2)
def _network(folder: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # judges run side by side
    path = Path(folder) / TAGGER_FILE
    try:
        return onnxruntime.InferenceSession(str(path), options)
    except Exception as error:  # its own, which have no base of their own
        raise UserError(f"{path}: is no network that can be read ({said(error)}); copy it again") from error
