"""How much of its codebooks a tokenizer uses: entropy in bits a second, share of codes in use, dead codes.

Counted over the task's test clips and a sample of its training clips. Entropies are of single ids, codebook by
codebook, so that they are an upper bound on what an entropy coder without context needs. Few ids can't show all codes,
and an entropy estimated from few ids is too low: chance is the same number of ids drawn uniformly, which is what these
ids could reach at most. Standard errors: jackknife over clips.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evaluation.metrics.estimate import Estimate
from evaluation.token_measures.coded import CodedClips, Measured


def entropy_bits(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Bits a second that the ids of all codebooks carry: the sum of their entropies times the rate.

    `levels` are bits an id. Raises UserError for a stream whose number of codes is not known.
    """
    rate = coded.spec(stream).rate
    counts = _counts(coded, stream)
    estimate = _jackknife(counts, lambda totals: rate * float(_entropies(totals).sum()))
    uniform = _uniform(coded, counts)
    levels = tuple(float(bits) for bits in _entropies(counts.sum(0)))
    return Measured(estimate, rate * float(_entropies(uniform).sum()), None, levels, "By codebook: bits an id.")


def nominal_bits(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Bits a second that the ids could carry: rate x codebooks x log2 of the codes. It has no error."""
    coded.codes(stream)  # raises where nobody wrote them down
    return Measured(Estimate(coded.spec(stream).bits_per_second, None, len(_counted(coded))))


def codes_in_use(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Share of the codes of all codebooks that some clip has."""
    counts = _counts(coded, stream)
    used = (counts.sum(0) > 0).mean(1)
    estimate = _jackknife(counts, lambda totals: float((totals > 0).mean()))
    return Measured(estimate, float((_uniform(coded, counts) > 0).mean()), None, tuple(map(float, used)))


def dead_codes(coded: CodedClips, stream: str, of: str = "") -> Measured:
    """Number of codes, of all codebooks together, that no clip has."""
    counts = _counts(coded, stream)
    dead = (counts.sum(0) == 0).sum(1)
    estimate = _jackknife(counts, lambda totals: float((totals == 0).sum()))
    return Measured(estimate, float((_uniform(coded, counts) == 0).sum()), None, tuple(map(float, dead)))


def _counted(coded: CodedClips) -> list:
    return list({clip.id: clip for clip in (*coded.test, *coded.sample("train"))}.values())


def _counts(coded: CodedClips, stream: str) -> np.ndarray:
    """(clips, codebooks, codes) how often each clip has each code."""

    def count() -> np.ndarray:
        codes, books = coded.codes(stream), coded.spec(stream).codebooks
        clips = coded.tokens(_counted(coded))
        found = np.zeros((len(clips), books, codes), dtype=np.int32)
        for one, tokens in zip(found, clips, strict=True):
            for book, ids in enumerate(tokens[stream].numpy()):
                one[book] = np.bincount(ids, minlength=codes)
        return found

    return coded.once(("counts", stream), count)


def _uniform(coded: CodedClips, counts: np.ndarray) -> np.ndarray:
    """(codebooks, codes) counts of as many ids, drawn uniformly."""
    total, (_, books, codes) = int(counts[:, 0].sum()), counts.shape
    return np.random.default_rng(coded.seed).multinomial(total, [1 / codes] * codes, size=books)


def _entropies(counts: np.ndarray) -> np.ndarray:
    """(codebooks, codes) -> (codebooks,) bits."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return -(share * np.log2(np.where(share > 0, share, 1.0))).sum(1)


def _jackknife(counts: np.ndarray, score: Callable[[np.ndarray], float]) -> Estimate:
    """The score of all counts (clips, codebooks, codes), with its standard error: each clip left out in turn."""
    totals, n = counts.sum(0), len(counts)
    value = score(totals)
    if n < 2:
        return Estimate(value, None, n)
    without = np.array([score(totals - one) for one in counts])
    return Estimate(value, float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())), n)
