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

Measure = Callable[[Any, Any], tuple[float, float] | None]


@dataclass(frozen=True)
class Metric:
    """One way to compare a prediction with its reference."""

    # as tasks name it
    name: str
    # words (free text), label (one of a closed set), audio (waveforms at 24 kHz) or likelihood
    takes: str
    # which is better: higher or lower
    direction: str
    # whether it is shown times 100
    percent: bool
    # as it is shown behind the number
    unit: str
    # (prediction, reference) -> (amount, weight); None where an absent prediction leaves nothing to measure
    measure: Measure
    # of the ratio over all items
    transform: Callable[[np.ndarray], np.ndarray] = lambda ratios: ratios

    def score(self, predictions: Sequence[Any], references: Sequence[Any]) -> Estimate:
        """The score over items, with its standard error; items without a measurement do not count in n."""
        measured = [self.measure(p, r) for p, r in zip(predictions, references, strict=True)]
        measured = [pair for pair in measured if pair is not None]
        return ratio([a for a, _ in measured], [w for _, w in measured], self.transform)

    def empty(self, references: Sequence[Any]) -> int:
        """How many references hold no word, where words are compared: the score treats them apart."""
        return sum(not _has_words(reference) for reference in references) if self.takes == "words" else 0

    def chance(self, references: Sequence[Any], choices: Sequence[int]) -> float | None:
        """The score of answers that ignore the input.

        Labels: one over the number of choices (the mean over items). Words and audio: the right answers of *other*
        items, each item answered with the one half the list away; for words silence, where that scores better.

        Args:
            references: Of all items.
            choices: Number of possible answers of each item; read for labels alone.

        Returns:
            The score; None with fewer than two items, and for likelihoods.
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


def metric(
    name: str, takes: str, direction: str, percent: bool = False, unit: str = "",
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[Measure], Measure]:  # fmt: skip
    """Register the decorated `measure` function as a metric; the arguments are the fields of `Metric`."""

    def register(measure: Measure) -> Measure:
        METRICS[name] = Metric(name, takes, direction, percent, unit, measure, transform or (lambda ratios: ratios))
        return measure

    return register


@metric("wer", takes="words", direction="lower", percent=True, unit="%")
def word_errors(prediction: str | None, reference: str) -> tuple[float, float]:
    """Word error rate: substitutions, deletions and insertions over reference words, summed over the corpus.

    No prediction is an empty one: every word is missing. Where the reference holds no word, silence is no error, and
    each invented word is one, over the reference words of the other items; where none has any, over one.
    """
    if not _has_words(reference):
        return float(len(normalise_words(prediction or "").split())), 0.0
    aligned = _align(prediction, reference)
    return aligned.substitutions + aligned.deletions + aligned.insertions, _words(aligned)


@metric("word_accuracy", takes="words", direction="higher", percent=True, unit="%")
def words_right(prediction: str | None, reference: str) -> tuple[float, float]:
    """Right words less words too many, not below zero for an item, over reference words.

    A reference without words counts as one word, which silence alone gets right.
    """
    if not _has_words(reference):
        return float(not _has_words(prediction)), 1.0
    aligned = _align(prediction, reference)
    return max(0, aligned.hits - aligned.insertions), _words(aligned)


@metric("accuracy", takes="label", direction="higher", percent=True, unit="%")
def label_right(prediction: str | None, reference: str | None) -> tuple[float, float] | None:
    """Exact match of a label. An answer that names no label, or several, is wrong; it is also counted as unparsed.

    None where the right answer itself names none.
    """
    return None if reference is None else (float(prediction == reference), 1.0)


@metric("mel_distance", takes="audio", direction="lower", unit="dB")
def mel_distance(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Mean absolute difference of two log-mel spectrograms (80 bands, 43 ms windows), in dB, levels included.

    The frames that both waveforms have are compared; the 80 dB below the reference's peak count.
    """
    if prediction is None or len(prediction) == 0:
        return None
    actual, expected = log_mel_decibels(prediction), log_mel_decibels(reference)
    floor = expected.max() - 80.0
    frames = min(actual.shape[1], expected.shape[1])
    difference = np.maximum(actual[:, :frames], floor) - np.maximum(expected[:, :frames], floor)
    return float(np.abs(difference).mean()), 1.0


@metric("stoi", takes="audio", direction="higher")
def intelligibility(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """STOI, 0 to 1, of a waveform aligned in time with its reference (codec reconstructions, not free generation).

    None where the clip holds less than the 0.4 s of signal that the measure needs.
    """
    import warnings

    from pystoi import stoi

    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    if length < 0.4 * RATE:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of pystoi for a clip that is too short: it returns 1e-5
        try:
            return float(stoi(reference[:length], prediction[:length], RATE)), 1.0
        except RuntimeWarning:
            return None


@metric("pesq", takes="audio", direction="higher")
def perceived_quality(prediction: np.ndarray | None, reference: np.ndarray) -> tuple[float, float] | None:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.6, of speech aligned in time with its reference, measured at 16 kHz.

    None where the measure finds no utterance, or less than the 0.25 s that it needs.

    Raises:
        UserError: Its library, an extra, is not installed.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise UserError("PESQ needs a package that is not installed: pip install 'uniaudio[quality]'") from error
    if prediction is None or len(prediction) == 0:
        return None
    length = min(len(prediction), len(reference))
    actual, expected = (
        resample_poly(np.nan_to_num(x[:length]).astype(np.float64), 2, 3) for x in (prediction, reference)
    )
    try:
        return float(pesq(16_000, expected, actual, "wb")), 1.0
    except PesqError:
        return None


@metric("perplexity", takes="likelihood", direction="lower", transform=np.exp)
def negative_log_likelihood(prediction: tuple[float, float] | None, reference: Any) -> tuple[float, float] | None:
    """exp of the mean negative log likelihood per token; the prediction is (sum of nats, tokens)."""
    return prediction


def _align(prediction: str | None, reference: str) -> jiwer.WordOutput:
    return jiwer.process_words(normalise_words(reference), normalise_words(prediction or ""))


def _has_words(text: str | None) -> bool:
    return bool(normalise_words(text or ""))


def _words(aligned: jiwer.WordOutput) -> float:
    return aligned.hits + aligned.substitutions + aligned.deletions
