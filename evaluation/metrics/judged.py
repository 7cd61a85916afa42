"""Metrics of what a judge made of waveforms (evaluation/judges/waveform_judges.py): pitch, voices, tags, ratings.

A judge gives numbers; none at all ([]) where it finds nothing to judge, and such an item does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.metrics.metric import metric

VOICED_FRAMES = 15  # least number of frames, 0.3 s, that a correlation of pitch needs


@metric("f0_correlation", takes="pitch", direction="higher")
def pitch_correlation(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Pearson's correlation of log F0 over the frames that are voiced in both, -1 to 1.

    None with fewer than 0.3 s of them, or where one does not move.
    """
    actual, expected = _frames(prediction, reference)
    both = (actual > 0) & (expected > 0)
    if both.sum() < VOICED_FRAMES:
        return None
    a, e = np.log(actual[both]), np.log(expected[both])
    if a.std() == 0 or e.std() == 0:
        return None
    return float(np.corrcoef(a, e)[0, 1]), 1.0


@metric("voicing_error", takes="pitch", direction="lower", percent=True, unit="%")
def voicing_errors(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Frames whose voicing differs from the original's, over all frames (the voicing decision error).

    None where the original has no voiced frame, or nothing was given.
    """
    actual, expected = _frames(prediction, reference)
    if not len(expected) or not (np.asarray(reference) > 0).any():
        return None
    return float(((actual > 0) != (expected > 0)).sum()), float(len(expected))


@metric("cosine", takes="embedding", direction="higher")
def cosine(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Cosine of two embeddings, -1 to 1: of voices, 1 for the same recording."""
    if not prediction or not reference:
        return None
    a, b = np.asarray(prediction), np.asarray(reference)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (float(a @ b) / norms, 1.0) if norms else None


@metric("clap_score", takes="description", direction="higher", guess="noise")
def described(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Cosine of the embeddings of a sound and of its caption, -1 to 1: the CLAP score of papers on sound from text."""
    return cosine(prediction, reference)


@metric("class_agreement", takes="tags", direction="higher", percent=True, unit="%")
def same_class(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Whether the tagger's most probable class is that of the original."""
    if not prediction or not reference:
        return None
    return float(int(np.argmax(prediction)) == int(np.argmax(reference))), 1.0


@metric("class_divergence", takes="tags", direction="lower")
def class_divergence(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Kullback-Leibler divergence in nats of the answer's shares of classes from the original's; 0 for the same.

    The "KL" of papers on sound from text, as far as the tagger is the same one: shares are made to sum to 1.
    """
    if not prediction or not reference:
        return None
    p, q = (np.asarray(shares, dtype=float) + 1e-7 for shares in (reference, prediction))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum()), 1.0


# What an edit asks for: which of the numbers of evaluation/judges/manner.py moves, and whether upwards; then the least
# change that is heard: 5 % of the time or of the pitch, 1.5 dB.
_EDITS = {
    "slower": (0, True), "faster": (0, False), "higher": (1, True), "lower": (1, False),
    "louder": (2, True), "quieter": (2, False),
}  # fmt: skip
_HEARD = (np.log(1.05), np.log(1.05), 1.5)


@metric("edit_direction", takes="manner", direction="higher", percent=True, unit="%", guess="coin")
def edited_as_asked(
    prediction: Sequence[float] | None, reference: tuple[str, Sequence[float]]
) -> tuple[float, float] | None:
    """Whether speed, pitch or level, whichever an edit is of, moved in the direction that was asked for.

    None where the edit is of something else (a word), or where the given recording has no such measurement.

    Args:
        prediction: Seconds, F0 and level of the answer; None or [] for silence, which is wrong.
        reference: Name of the edit, and the same numbers of the recording that was given.
    """
    edit, given = reference
    if edit not in _EDITS or not given:
        return None
    place, upwards = _EDITS[edit]
    if place < 2 and given[place] <= 0:
        return None
    if not prediction or (place < 2 and prediction[place] <= 0):
        return 0.0, 1.0
    change = prediction[place] - given[place] if place == 2 else float(np.log(prediction[place] / given[place]))
    return float((change if upwards else -change) > _HEARD[place]), 1.0


@metric("rating", takes="rating", direction="higher", guess="noise")
def rating(prediction: Sequence[float] | None, reference: object) -> tuple[float, float] | None:
    """A predicted mean opinion score, 1 to 5; the original is not compared, but stands beside."""
    return (float(prediction[0]), 1.0) if prediction else None


def _frames(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Both pitch tracks (T,), as long as the shorter."""
    length = min(len(prediction or ()), len(reference))
    return np.asarray((prediction or ())[:length], dtype=float), np.asarray(reference[:length], dtype=float)
