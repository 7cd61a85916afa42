"""Figures of the report, each a piece of HTML complete in itself: waveforms and scales as SVG, spectrograms as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.image import imsave

from evaluation.metrics.spectra import RATE, log_mel_decibels

WAVEFORM_COLUMNS = 240
SPECTROGRAM_COLUMNS = 420  # at most: pictures of long clips are thinned
_FLOOR = 70.0  # dB below the loudest that a spectrogram shows


def waveform_svg(waveform: np.ndarray) -> str:
    """A waveform (n,) as a filled outline in the text's colour; full height is full scale."""
    columns = min(WAVEFORM_COLUMNS, max(1, len(waveform)))
    pieces = np.array_split(np.clip(np.nan_to_num(waveform), -1, 1), columns)
    tops = [20 - 19 * max(float(piece.max()), 0.0) - 0.4 for piece in pieces]
    bottoms = [20 - 19 * min(float(piece.min()), 0.0) + 0.4 for piece in pieces]
    up = " ".join(f"{x},{y:.1f}" for x, y in enumerate(tops))
    down = " ".join(f"{x},{y:.1f}" for x, y in reversed(list(enumerate(bottoms))))
    return (
        f'<svg class="wave" viewBox="0 0 {columns} 40" preserveAspectRatio="none" role="img" aria-label="waveform">'
        f'<polygon points="{up} {down}"/></svg>'
    )


def spectrogram_png(waveform: np.ndarray) -> str:
    """A mel spectrogram (0 to 12 kHz, low at the bottom) of a waveform (n,), as an <img> with its picture inside."""
    decibels = log_mel_decibels(waveform)
    step = max(1, -(-decibels.shape[1] // SPECTROGRAM_COLUMNS))
    decibels = np.maximum(decibels, decibels.max() - _FLOOR)[::-1, ::step]
    file = io.BytesIO()
    imsave(file, decibels, cmap=matplotlib.colormaps["magma"], format="png")
    return f'<img class="spectrogram" alt="mel spectrogram" src="{data_uri(file.getvalue(), "image/png")}">'


def player(flac: bytes) -> str:
    """An audio element with a FLAC file inside."""
    return f'<audio controls preload="none" src="{data_uri(flac, "audio/flac")}"></audio>'


def seconds(waveform: np.ndarray) -> str:
    """Length of a waveform (n,), as people read it."""
    return f"{len(waveform) / RATE:.1f} s"


def scale_svg(score: Mapping, limits: tuple[float, float]) -> str:
    """One score on a line: chance as a tick, the untrained model as a ring, ceilings as bars, the model as a dot.

    Args:
        score: Entry of a score in results.json.
        limits: Values at the left and the right end, which is always the better one.
    """

    def place(value: float) -> float:
        left, right = limits
        return 6 + 228 * min(1.0, max(0.0, (value - left) / (right - left)))

    parts = ['<line class="axis" x1="6" x2="234" y1="12" y2="12"/>']
    for name in ("original", "codec"):
        if score[name] and score[name]["value"] is not None:
            x = place(score[name]["value"])
            parts.append(f'<rect class="{name}" x="{x - 1.5:.1f}" y="4" width="3" height="16" rx="1.5"/>')
    if score["chance"] is not None:
        x = place(score["chance"])
        parts.append(f'<line class="chance" x1="{x:.1f}" x2="{x:.1f}" y1="5" y2="19"/>')
    if score["untrained"] and score["untrained"]["value"] is not None:
        parts.append(f'<circle class="untrained" cx="{place(score["untrained"]["value"]):.1f}" cy="12" r="4"/>')
    if score["value"] is not None:
        value, error = score["value"], score["stderr"] or 0.0
        low, high = sorted((place(value - error), place(value + error)))
        parts.append(f'<line class="error" x1="{low:.1f}" x2="{high:.1f}" y1="12" y2="12"/>')
        parts.append(f'<circle class="model" cx="{place(value):.1f}" cy="12" r="5"/>')
    return f'<svg class="scale" viewBox="0 0 240 24" role="img" aria-label="score on its scale">{"".join(parts)}</svg>'


def difference_svg(value: float, ends: tuple[float, float], limit: float) -> str:
    """A difference on a line with 0 in its middle: the interval as a bar, the difference as a dot.

    Args:
        value: The difference, so that above 0 is better.
        ends: Of its interval.
        limit: Value at the right end; its negative is at the left.
    """
    low, high, at = (120 + 114 * max(-1.0, min(1.0, x / limit)) if limit else 120.0 for x in (*sorted(ends), value))
    return (
        '<svg class="scale" viewBox="0 0 240 24" role="img" aria-label="difference with its interval">'
        '<line class="axis" x1="6" x2="234" y1="12" y2="12"/><line class="chance" x1="120" x2="120" y1="3" y2="21"/>'
        f'<line class="error" x1="{low:.1f}" x2="{high:.1f}" y1="12" y2="12"/>'
        f'<circle class="model" cx="{at:.1f}" cy="12" r="5"/></svg>'
    )


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
