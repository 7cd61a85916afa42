"""A sound in the report: outline, spectrogram and player."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from evaluation.report import figures
from evaluation.runner import flac


def waveform_of(path: str | Path) -> np.ndarray | None:
    """The waveform (n,) of a file; None where it has moved since, or is damaged: the report then has a remark."""
    try:
        return load_audio(path).numpy()
    except UserError:
        return None


def sound_figure(caption: str, waveform: np.ndarray | None, budget: list[int], below: str = "") -> str:
    """A figure of a waveform (n,).

    Args:
        caption: HTML.
        waveform: None where its file cannot be read.
        budget: Bytes of sound that the report may still hold, which this lowers; beyond it there is no player.
        below: HTML under the figure.
    """
    if waveform is None or len(waveform) == 0:
        return f"<figure><figcaption>{caption}: its file is no longer there, or cannot be read</figcaption></figure>"
    content = flac(waveform)
    fits = len(content) <= budget[0]
    budget[0] -= len(content) if fits else 0
    sound = figures.player(content) if fits else "<p class='soft'>no player: the report's limit of sound is reached</p>"
    return (
        f"<figure><figcaption>{caption}, {figures.seconds(waveform)}</figcaption>{figures.waveform_svg(waveform)}"
        f"{figures.spectrogram_png(waveform)}{sound}{below}</figure>"
    )
