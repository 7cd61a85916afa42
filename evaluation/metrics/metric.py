"""What a metric is. It gives every item an amount and a weight; a score is their ratio over all items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics.estimate import Estimate, ratio
from lm.words import normalise_words

Measure = Callable[[Any, Any], tuple[float, float] | None]
# Applies a measure to the pairs of predictions and references, in order: `map`, or processes and a cache.
Each = Callable[[Measure, Sequence[Any], Sequence[Any]], Iterable[tuple[float, float] | None]]


@dataclass(frozen=True)
class Metric:
    """One way to compare a prediction with its reference."""

    # as tasks name it
    name: str
    # words (free text), label (one of a closed set), audio (waveforms at 24 kHz), likelihood; or what a judge makes of
    # a waveform: pitch (Hz of each frame, 0 unvoiced), embedding (a vector), description (one beside that of a
    # caption), tags (a share of each class), manner (seconds, pitch, level), key (tonic, mode), tempo (beats a minute),
    # rating (a number that needs no reference)
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
    # what an answer that ignores the input is: "others" the right one of another item, "noise" with the item's own
    # spectrum, or "coin" the toss of one
    guess: str = "others"
    # whether it takes so long that processes and a cache are worth while
    slow: bool = False

    def score(self, predictions: Sequence[Any], references: Sequence[Any], each: Each = map) -> Estimate:
        """The score over items, with its standard error; items without a measurement do not count in n."""
        return self.scored(predictions, references, each)[0]

    def scored(
        self, predictions: Sequence[Any], references: Sequence[Any], each: Each = map
    ) -> tuple[Estimate, list[tuple[float, float] | None]]:
        """The same, and (amount, weight) of each item; None for items without a measurement."""
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
        measured = list(each(self.measure, predictions, references))
        known = [pair for pair in measured if pair is not None]
        return ratio([a for a, _ in known], [w for _, w in known], self.transform), measured

    def empty(self, references: Sequence[Any]) -> int:
        """How many references hold no word, where words are compared: the score treats them apart."""
        return sum(not has_words(reference) for reference in references) if self.takes == "words" else 0

    def chance(self, references: Sequence[Any], choices: Sequence[int], each: Each = map) -> float | None:
        """The score of answers that ignore the input.

        Labels: one over the number of choices (the mean over items). Words and all that is compared with the original:
        the right answers of *other* items, each item answered with the one half the list away; for words silence, where
        that scores better. Where noise is the guess, evaluation/scoring.py makes it.

        Args:
            references: Of all items.
            choices: Number of possible answers of each item; read for labels alone.
            each: As in `score`.

        Returns:
            The score; None with fewer than two items, for likelihoods, and where noise is the guess.
        """
        if self.takes == "label":
            return float(np.mean([1 / n for n in choices])) if len(choices) and min(choices) else None
        if self.guess == "coin":
            return 0.5
        if self.takes == "likelihood" or self.guess == "noise" or len(references) < 2:
            return None
        others = np.roll(np.arange(len(references)), len(references) // 2)
        scores = [self.score([references[i] for i in others], references, each).value]
        if self.takes == "words":
            scores.append(self.score([""] * len(references), references).value)
        known = [score for score in scores if score is not None]
        return (min if self.direction == "lower" else max)(known, default=None)


METRICS: dict[str, Metric] = {}


def metric(
    name: str, takes: str, direction: str, percent: bool = False, unit: str = "",
    transform: Callable[[np.ndarray], np.ndarray] | None = None, guess: str = "others", slow: bool = False,
) -> Callable[[Measure], Measure]:  # fmt: skip
    """Register the decorated `measure` function as a metric; the arguments are the fields of `Metric`."""

    def register(measure: Measure) -> Measure:
        same = transform or (lambda ratios: ratios)
        METRICS[name] = Metric(name, takes, direction, percent, unit, measure, same, guess, slow)
        return measure

    return register


def has_words(text: str | None) -> bool:
    """Whether a text has any word once it is normalised."""
    return bool(normalise_words(text or ""))
