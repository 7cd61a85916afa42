"""Voices: the speaker encoder of the package resemblyzer, whose weights are read here.

The package itself does not start beside a recent setuptools (its voice detector imports pkg_resources); nothing of
it is imported. Instead of that detector, pauses are cut by level.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from codec.untrusted_weights import read_pickle
from evaluation.metrics.packages import folder_of, require

SPEAKER_VERSION = "GE2E encoder of resemblyzer, pauses cut by level, 1"
_RATE, _MELS, _WINDOW, _HOP = 16_000, 40, 400, 160
_PARTIAL, _STEP = 160, 77  # frames of a window, and from one to the next: 1.6 and 0.77 s
_LEVEL = -30.0  # dB of full scale: softer clips are made as loud
_BLOCK, _QUIET, _SMOOTH = 480, 0.003, 7  # pauses: blocks of 30 ms, share of the loud blocks' energy, blocks around


def speaker_embedding(waveform: np.ndarray) -> list[float]:
    """A unit vector (256,) of the voice in a waveform (n,) at 24 kHz (Wan et al. 2018); [] for silence.

    Raises:
        Absent: The package is not installed.
    """
    torch, encoder = _encoder()
    audio = resample_poly(np.nan_to_num(waveform).astype(np.float64), 2, 3) if len(waveform) else np.zeros(0)
    power = float(np.mean(audio**2)) if len(audio) else 0.0
    if power < 1e-10:
        return []
    audio = audio * 10 ** (max(0.0, _LEVEL - 10 * np.log10(power)) / 20)
    mels = _mel_power(torch, torch.from_numpy(_without_pauses(audio).astype(np.float32)))  # (T, 40)
    short = _PARTIAL - len(mels)
    if short > 0:
        mels = torch.nn.functional.pad(mels, (0, 0, 0, short))
    partials = mels.unfold(0, _PARTIAL, _STEP).transpose(1, 2)  # (P, 160, 40)
    with torch.inference_mode():
        hidden = encoder["lstm"](partials)[1][0][-1]
        found = torch.nn.functional.normalize(torch.relu(encoder["linear"](hidden)), dim=1).mean(dim=0)
    return torch.nn.functional.normalize(found, dim=0).tolist()


def _without_pauses(audio: np.ndarray) -> np.ndarray:
    """The blocks near loud ones; all of a clip that has few."""
    blocks = audio[: len(audio) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    if not len(blocks):
        return audio
    energy = (blocks**2).mean(axis=1)
    kept = np.convolve(energy > _QUIET * np.quantile(energy, 0.95), np.ones(_SMOOTH), "same") > 0
    return blocks[kept].reshape(-1) if kept.sum() > 10 else audio


def _mel_power(torch: Any, audio: Any) -> Any:
    """(n,) -> (T, 40) power in Slaney's mel bands, as librosa computes it."""
    from torchaudio.functional import melscale_fbanks

    window = torch.hann_window(_WINDOW)
    power = torch.stft(audio, _WINDOW, _HOP, window=window, pad_mode="constant", return_complex=True).abs() ** 2
    bands = melscale_fbanks(_WINDOW // 2 + 1, 0.0, _RATE / 2, _MELS, _RATE, norm="slaney", mel_scale="slaney")
    return power.T @ bands


@lru_cache(maxsize=1)
def _encoder() -> tuple[Any, Any]:
    require("speaker cosine", "resemblyzer")
    import torch

    weights = read_pickle(folder_of("resemblyzer") / "pretrained.pt")
    layers = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(_MELS, 256, 3, batch_first=True), "linear": torch.nn.Linear(256, 256)}
    )
    names = layers.state_dict()
    layers.load_state_dict({name: tensor for name, tensor in weights["model_state"].items() if name in names})
    return torch, layers.eval()
