"""Predictors of mean opinion scores of speech, 1 to 5: DNSMOS (package speechmos) and DistillMOS (distillmos)."""

from __future__ import annotations

import contextlib
import io
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from evaluation.metrics.packages import folder_of, require

DNSMOS_VERSION = "DNSMOS P.835 overall, sig_bak_ovr.onnx of speechmos, windows of 9.01 s every second, 1"
DISTILLMOS_VERSION = "DistillMOS v7 of distillmos, 1"
_RATE = 16_000
_DNSMOS_WINDOW = int(9.01 * _RATE)
_DNSMOS_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # the published map from the network's output


def dnsmos(waveform: np.ndarray) -> list[float]:
    """The overall score of DNSMOS P.835 (Reddy et al. 2022) of a waveform (n,) at 24 kHz; [] for no samples.

    A clip shorter than 9 s is repeated, as its authors do.

    Raises:
        Absent: A package is not installed.
    """
    session = _dnsmos()
    audio = _at_16_khz(waveform)
    if not len(audio):
        return []
    if len(audio) < _DNSMOS_WINDOW:
        audio = np.tile(audio, -(-_DNSMOS_WINDOW // len(audio)))[: max(_DNSMOS_WINDOW, len(audio))]
    starts = range(0, len(audio) - _DNSMOS_WINDOW + 1, _RATE)
    scores = [session.run(None, {"input_1": audio[None, s : s + _DNSMOS_WINDOW]})[0][0][2] for s in starts]
    return [float(np.mean(np.polyval(_DNSMOS_OVERALL, scores)))]


def distillmos(waveform: np.ndarray) -> list[float]:
    """DistillMOS (Stahl and Gamper 2025) of a waveform (n,) at 24 kHz; [] for no samples.

    Raises:
        Absent: The package is not installed.
    """
    torch, model = _distillmos()
    audio = _at_16_khz(waveform)
    if not len(audio):
        return []
    with torch.inference_mode():
        return [float(model(torch.from_numpy(audio)[None]).item())]


def _at_16_khz(waveform: np.ndarray) -> np.ndarray:
    if not len(waveform):
        return np.zeros(0, np.float32)
    return np.clip(resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3), -1, 1).astype(np.float32)


@lru_cache(maxsize=1)
def _dnsmos() -> Any:
    require("DNSMOS", "speechmos", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # judges run side by side
    return onnxruntime.InferenceSession(str(folder_of("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx"), options)


@lru_cache(maxsize=1)
def _distillmos() -> tuple[Any, Any]:
    require("DistillMOS", "distillmos")
    import torch
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
        return torch, ConvTransformerSQAModel().eval()
