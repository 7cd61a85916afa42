"""The Fréchet distance: how far apart two sets of clips are, whichever clip belongs to which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics.estimate import BOOTSTRAP_SEED, Estimate
from evaluation.metrics.metric import METRICS, Each, Metric

RESAMPLES = 200  # each takes a singular value decomposition
LEAST_CLIPS = 4


@dataclass(frozen=True)
class FrechetDistance(Metric):
    """Squared Fréchet distance of Gaussians fitted to embeddings (Heusel et al. 2017; of audio, Kilgour et al. 2019).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), of dimensions standardised by the originals and divided by their
    number, so that 1 is about a deviation in each. Few clips make it larger than it is: compare codecs on the same
    clips, and with the distance of two halves of the originals that stands beside. Its standard error is a seeded
    bootstrap over clips.
    """

    def scored(
        self, predictions: Sequence[Any], references: Sequence[Any], each: Each = map
    ) -> tuple[Estimate, list[tuple[float, float] | None]]:
        """The distance; a single clip has none."""
        pairs = [(p, r) for p, r in zip(predictions, references, strict=True) if p and r]
        if len(pairs) < LEAST_CLIPS:
            return Estimate(None, None, len(pairs)), [None] * len(predictions)
        actual, expected = (np.asarray(side, dtype=np.float64) for side in zip(*pairs, strict=True))
        return frechet_estimate(actual, expected), [None] * len(predictions)

    def ceiling(self, references: Sequence[Any]) -> Estimate:
        """The distance of two halves of the originals: what so few clips differ by themselves."""
        known = np.asarray([r for r in references if r], dtype=np.float64)
        if len(known) < 2 * LEAST_CLIPS:
            return Estimate(None, None, len(known))
        half = len(known) // 2
        return frechet_estimate(known[:half], known[half : 2 * half], scale_by=known)


def frechet_estimate(actual: np.ndarray, expected: np.ndarray, scale_by: np.ndarray | None = None) -> Estimate:
    """The distance of two sets (n, F), n > 1, with its standard error.

    Args:
        actual: One set.
        expected: The other; the same number of clips, which are resampled together.
        scale_by: Whose deviations dimensions are standardised by; None for `expected`.
    """
    deviations = (expected if scale_by is None else scale_by).std(axis=0)
    scale = np.where(deviations > 1e-9, deviations, np.inf) * math.sqrt(actual.shape[1])  # constants say nothing
    a, b = actual / scale, expected / scale
    rng = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(a), size=(RESAMPLES, len(a)))
    resampled = [frechet(a[chosen], b[chosen]) for chosen in rng if len(set(chosen.tolist())) > 1]
    return Estimate(frechet(a, b), float(np.std(resampled, ddof=1)), len(a))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets (n, F) and (m, F).

    With C1 = A'A and C2 = B'B, the trace of (C1 C2)^(1/2) is the sum of the singular values of AB': no square root of
    a matrix that lacks rank is needed.
    """
    centred_a, centred_b = a - a.mean(axis=0), b - b.mean(axis=0)
    root_a, root_b = centred_a / math.sqrt(len(a) - 1), centred_b / math.sqrt(len(b) - 1)
    if len(a) > a.shape[1]:  # the same covariances in fewer rows
        root_a = np.linalg.qr(root_a, mode="r")
    if len(b) > b.shape[1]:
        root_b = np.linalg.qr(root_b, mode="r")
    together = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    apart = (root_a**2).sum() + (root_b**2).sum() - 2 * together
    return max(0.0, float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + apart))


def both_embeddings(prediction: Sequence[float] | None, reference: Sequence[float]) -> tuple[float, float] | None:
    """Fréchet distance of all clips' embeddings: one clip alone has none."""
    return None


METRICS["frechet_distance"] = FrechetDistance(
    "frechet_distance", "embedding", "lower", False, "", both_embeddings, guess="noise"
)
