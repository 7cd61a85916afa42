"""Metrics of music beside its description: the key, and the tempo in beats per minute.

What is compared is a judge's numbers (evaluation/judges/music.py) with a label's text: "C sharp minor", "132".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.metrics.metric import metric
from evaluation.metrics.packages import Absent
from lm.words import as_number

NEAR = 0.08  # of the right tempo, as in MIREX
_OCTAVES = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_KEY = re.compile(r"([A-Ga-g])[ -]?(sharp|flat|#|b)? (major|minor)")

Found = Sequence[float] | str | None  # by a judge, or as a label says it


@metric("key_score", takes="key", direction="higher", percent=True, unit="%")
def key_score(prediction: Found, reference: str) -> tuple[float, float] | None:
    """MIREX's weighted score of a key: 1 for the same, 0.5 a fifth apart, 0.3 the relative, 0.2 the parallel key.

    None where the reference names no key; a sound without one is wrong.

    Raises:
        Absent: mir_eval is not installed.
    """
    try:
        from mir_eval.key import weighted_score
    except ImportError as error:
        raise Absent("key scores need mir_eval: pip install 'uniaudio[quality]'") from error
    expected, found = _key_name(reference), _key_name(prediction)
    if not expected:
        return None
    return (float(weighted_score(expected, found)) if found else 0.0), 1.0


@metric("tempo_accuracy", takes="tempo", direction="higher", percent=True, unit="%")
def tempo_right(prediction: Found, reference: str) -> tuple[float, float] | None:
    """Whether a tempo lies within 8 % of the right one. None where the reference is no number."""
    return _near(prediction, reference, (1.0,))


@metric("tempo_octave_accuracy", takes="tempo", direction="higher", percent=True, unit="%")
def tempo_right_but_for_octaves(prediction: Found, reference: str) -> tuple[float, float] | None:
    """The same where two or three times as fast, or as slow, is right too (accuracy 2 of Gouyon et al. 2006)."""
    return _near(prediction, reference, _OCTAVES)


def _near(prediction: Found, reference: str, factors: Sequence[float]) -> tuple[float, float] | None:
    expected, found = _number(reference), _number(prediction)
    if not expected:
        return None
    return float(found is not None and any(abs(found * f / expected - 1) <= NEAR for f in factors)), 1.0


def _number(found: Found) -> float | None:
    if isinstance(found, str):
        value = as_number(found)
        return value if value and value > 0 else None
    return float(found[0]) if found else None


def _key_name(found: Found) -> str:
    """As mir_eval writes it: "c# minor"; "" for none."""
    if isinstance(found, str):
        named = _KEY.fullmatch(found.strip())
        if not named:
            return ""
        sign = {"sharp": "#", "flat": "b", None: ""}.get(named[2], named[2])
        return f"{named[1].upper()}{sign} {named[3]}"
    return f"{_NAMES[int(found[0])]} {('major', 'minor')[int(found[1])]}" if found else ""
