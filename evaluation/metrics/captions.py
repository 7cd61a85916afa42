"""Metrics of captions: how much of a description stands in another one. Words as in the word error rate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.metrics.estimate import Estimate, ratio
from evaluation.metrics.metric import METRICS, Each, Metric, metric
from lm.words import normalise_words

LONGEST = 4  # words in an n-gram
LENGTHS = 6.0  # standard deviation of the penalty for another length, in words
BETA = 1.2  # how much more recall matters than precision


@dataclass(frozen=True)
class Cider(Metric):
    """CIDEr-D (Vedantam et al. 2015), 0 to 10, each answer against the one caption of its clip.

    The cosine of the counts of n-grams, n = 1 to 4, weighed by how few of the references hold them, no count above the
    reference's, times a penalty for another length. Words are not stemmed. A benchmark with several captions a clip
    gives higher values than one. How rare an n-gram is, the items themselves say: compare models on the same items.
    """

    def scored(
        self, predictions: Sequence[Any], references: Sequence[Any], each: Each = map
    ) -> tuple[Estimate, list[tuple[float, float] | None]]:
        """The mean over items; a single one says nothing of how rare its words are."""
        said, right = ([_ngrams(text) for text in texts] for texts in (predictions, references))
        holders = Counter(ngram for grams in right for ngram in grams)
        if len(right) < 2:
            return Estimate(None, None, 0), [None] * len(right)
        measured = [(_cider(a, b, holders, len(right)), 1.0) for a, b in zip(said, right, strict=True)]
        return ratio(*zip(*measured, strict=True)), list(measured)


@metric("rouge_l", takes="words", direction="higher", percent=True, unit="%")
def longest_common_subsequence(prediction: str | None, reference: str) -> tuple[float, float]:
    """ROUGE-L (Lin 2004): F of the longest common subsequence of words, with a beta of 1.2."""
    said, right = (normalise_words(text or "").split() for text in (prediction, reference))
    if not said or not right:
        return float(said == right), 1.0
    lengths = [0] * (len(right) + 1)
    for word in said:
        before = lengths[:]
        for i, other in enumerate(right):
            lengths[i + 1] = before[i] + 1 if word == other else max(before[i + 1], lengths[i])
    common = lengths[-1]
    precision, recall = common / len(said), common / len(right)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if common else 0.0, 1.0


def _ngrams(text: str | None) -> Counter[tuple[str, ...]]:
    words = normalise_words(text or "").split()
    return Counter(tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1))


def _cider(
    said: Counter[tuple[str, ...]], right: Counter[tuple[str, ...]], holders: Counter[tuple[str, ...]], items: int
) -> float:
    def weighed(ngrams: Counter[tuple[str, ...]], n: int) -> dict[tuple[str, ...], float]:
        rarity = {ngram: math.log(items / max(1, holders[ngram])) for ngram in ngrams if len(ngram) == n}
        return {ngram: ngrams[ngram] * weight for ngram, weight in rarity.items()}

    lengths = [sum(count for ngram, count in ngrams.items() if len(ngram) == 1) for ngrams in (said, right)]
    total = 0.0
    for n in range(1, LONGEST + 1):
        a, b = weighed(said, n), weighed(right, n)
        size = math.hypot(*a.values()) * math.hypot(*b.values())
        if size > 0:
            total += sum(min(weight, b[ngram]) * b[ngram] for ngram, weight in a.items() if ngram in b) / size
    return 10 * total / LONGEST * math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * LENGTHS**2))


def _alone(prediction: str | None, reference: str) -> tuple[float, float] | None:
    """CIDEr of all captions: one alone has none."""
    return None


METRICS["cider"] = Cider("cider", "words", "higher", False, "", _alone)
