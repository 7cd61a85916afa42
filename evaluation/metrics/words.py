"""Metrics of words, labels and likelihoods."""

from __future__ import annotations

from typing import Any

import jiwer
import numpy as np

from evaluation.metrics.metric import has_words, metric
from lm.words import normalise_words


@metric("wer", takes="words", direction="lower", percent=True, unit="%")
def word_errors(prediction: str | None, reference: str) -> tuple[float, float]:
    """Word error rate: substitutions, deletions and insertions over reference words, summed over the corpus.

    No prediction is an empty one: every word is missing. Where the reference holds no word, silence is no error, and
    each invented word is one, over the reference words of the other items; where none has any, over one.
    """
    if not has_words(reference):
        return float(len(normalise_words(prediction or "").split())), 0.0
    aligned = _align(prediction, reference)
    return aligned.substitutions + aligned.deletions + aligned.insertions, _words(aligned)


@metric("word_accuracy", takes="words", direction="higher", percent=True, unit="%")
def words_right(prediction: str | None, reference: str) -> tuple[float, float]:
    """Right words less words too many, not below zero for an item, over reference words.

    A reference without words counts as one word, which silence alone gets right.
    """
    if not has_words(reference):
        return float(not has_words(prediction)), 1.0
    aligned = _align(prediction, reference)
    return max(0, aligned.hits - aligned.insertions), _words(aligned)


@metric("accuracy", takes="label", direction="higher", percent=True, unit="%")
def label_right(prediction: str | None, reference: str | None) -> tuple[float, float] | None:
    """Exact match of a label. An answer that names no label, or several, is wrong; it is also counted as unparsed.

    None where the right answer itself names none.
    """
    return None if reference is None else (float(prediction == reference), 1.0)


@metric("perplexity", takes="likelihood", direction="lower", transform=np.exp)
def negative_log_likelihood(prediction: tuple[float, float] | None, reference: Any) -> tuple[float, float] | None:
    """exp of the mean negative log likelihood per token; the prediction is (sum of nats, tokens)."""
    return prediction


def _align(prediction: str | None, reference: str) -> jiwer.WordOutput:
    return jiwer.process_words(normalise_words(reference), normalise_words(prediction or ""))


def _words(aligned: jiwer.WordOutput) -> float:
    return aligned.hits + aligned.substitutions + aligned.deletions
