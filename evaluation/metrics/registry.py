"""The registry of metrics. A metric gives every item an amount and a weight; a score is their ratio over all items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
from scipy.signal import resample_poly

from codec.io.errors import UserError
from evaluation.metrics.estimate import Estimate, ratio
from evaluation.metrics.spectra import RATE, log_mel_decibels
from lm.words import normalise_words


@dataclass(frozen=True)
class Metric:
    """One way to compare a reading with its reference.

    measure(reading, reference) -> (amount, weight), or None where an absent reading leaves nothing to measure
    takes: "words" (free text), "label" (one of a closed set), "audio" (waveforms, 24 kHz) or "likelihood"
    percent: shown times 100
    """

    name: str
    takes: str
    direction: str  # "higher" or "lower" is better
    percent: bool
    unit: str
    measure: Callable[[Any, Any], tuple[float, float] | None]
    transform: Callable[[np.ndarray], np.ndarray] = lambda ratios: ratios

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Estimate:
        """The score over items, with its standard error; items without a measurement do not count in n."""
        measured = [self.measure(r, t) for r, t in zip(predictions, references, strict=True)]
        measured = [pair for pair in measured if pair is not None]
        return ratio([a for a, _ in measured], [w for _, w in measured], self.transform)

    def empty(self, references: Sequence[Any]) -> int:
        """How many references hold no word, where words are compared: the score treats them apart, and says so."""
        return sum(not _has_words(reference) for reference in references) if self.takes == "words" else 0

    def chance(self, references: Sequence[Any], choices: Sequence[int]) -> float | None:
        """What answering without listening scores.

        Labels: one over the number of choices (the mean over items). Words and audio: the right answers of *other*
        items, each item answered with the one half the list away; for words silence, where that scores better.
        None with fewer than two items.
        """
        if self.takes == "label":
            return float(np.mean([1 / n for n in choices])) if len(choices) and min(choices) else None
        if self.takes == "likelihood" or len(references) < 2:
            return None
        others = np.roll(np.arange(len(references)), len(references) // 2)
        scores = [self.score([references[i] for i in others], references).value]
        if self.takes == "words":
            scores.append(self.score([""] * len(references), references).value)
        known = [score for score in scores if score is not None]
        return (min if self.direction == "lower" else max)(known, default=None)


METRICS: dict[str, Metric] = {}


def metric(name: str, takes: str, direction: str, percent: bool = False, unit: str = "", transform=None):
    """Register the decorated `measure` function as a metric."""

    def register(measure):
        METRICS[name] = Metric(name, takes, direction, percent, unit, measure, transform or (lambda ratios: ratios))
        return measure

    return register


@metric("wer", takes="words", direction="lower", percent=True, unit="%")
def word_errors(reading: str | None, reference: str) -> tuple[float, float]:
    """Word error rate: substitutions, deletions and insertions over reference words, summed over the corpus.

    No reading is an empty one: every word is missing. Where the reference holds no word, silence is no error, and each
    word that is invented is one, over the reference words of the other items; where none has any, over one.
    """
    if not _has_words(reference):
        return float(len(normalise_words(reading or "").split())), 0.0
    found = _align(reading, reference)
    return found.substitutions + found.deletions + found.insertions, _words(found)


@metric("word_accuracy", takes="words", direction="higher", percent=True, unit="%")
def words_right(reading: str | None, reference: str) -> tuple[float, float]:
    """Words heard right less words too many, not below zero for an item, over reference words.

    A reference without words counts as one word, which silence alone gets right.
    """
    if not _has_words(reference):
        return float(not _has_words(reading)), 1.0
    found = _align(reading, reference)
    return max(0, found.hits - found.insertions), _words(found)


@metric("accuracy", takes="label", direction="higher", percent=True, unit="%")
def label_right(reading: str | None, reference: str | None) -> tuple[float, float] | None:
    """Exact match of a label. An answer that names no label, or several, is wrong; it is also counted as unparsed.

    None where the right answer itself names none.
    """
    return None if reference is None else (float(reading == reference), 1.0)


@metric("mel_distance", takes="audio", direction="lower", unit="dB")
def mel_distance(reading: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Mean absolute difference of two log-mel spectrograms (80 bands, 43 ms windows), in dB, levels included.

    The frames that both waveforms have are compared; the 80 dB below the reference's peak count.
    """
    if reading is None or len(reading) == 0:
        return None
    ours, theirs = log_mel_decibels(reading), log_mel_decibels(reference)
    floor = theirs.max() - 80.0
    frames = min(ours.shape[1], theirs.shape[1])
    difference = np.maximum(ours[:, :frames], floor) - np.maximum(theirs[:, :frames], floor)
    return float(np.abs(difference).mean()), 1.0


@metric("stoi", takes="audio", direction="higher")
def intelligibility(reading: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """STOI, 0 to 1, of a reading aligned in time with its reference (codec reconstructions, not free generation).

    None where the clip holds less than the 0.4 s of signal that the measure needs.
    """
    import warnings

    from pystoi import stoi

    if reading is None or len(reading) == 0:
        return None
    length = min(len(reading), len(reference))
    if length < 0.4 * RATE:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi's way to say 'too short'; it then returns 1e-5
        try:
            return float(stoi(reference[:length], reading[:length], RATE)), 1.0
        except RuntimeWarning:
            return None


@metric("pesq", takes="audio", direction="higher")
def perceived_quality(reading: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6, of speech aligned in time with its reference; heard at 16 kHz.

    None where the measure finds no utterance, or less than the 0.25 s that it needs. Its library is an extra: raises
    UserError without it.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise UserError("PESQ needs a package that is not installed: pip install 'uniaudio[quality]'") from error
    if reading is None or len(reading) == 0:
        return None
    length = min(len(reading), len(reference))
    ours, theirs = (resample_poly(np.nan_to_num(x[:length]).astype(np.float64), 2, 3) for x in (reading, reference))
    try:
        return float(pesq(16_000, theirs, ours, "wb")), 1.0
    except PesqError:
        return None


@metric("perplexity", takes="likelihood", direction="lower", transform=np.exp)
def negative_log_likelihood(reading: tuple[float, float] | None, reference: Any) -> tuple[float, float] | None:
    """exp of the mean negative log likelihood per token; the reading is (sum of nats, tokens)."""
    return reading


def _align(reading: str | None, reference: str) -> jiwer.WordOutput:
    return jiwer.process_words(normalise_words(reference), normalise_words(reading or ""))


def _has_words(text: str | None) -> bool:
    return bool(normalise_words(text or ""))


def _words(found: jiwer.WordOutput) -> float:
    return found.hits + found.substitutions + found.deletions
