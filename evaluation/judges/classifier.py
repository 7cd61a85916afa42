"""Shrinkage linear discriminant analysis in numpy: from signal features to a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShrinkageLDA:
    """Nearest class mean under one pooled covariance, shrunk towards the identity of standardised features."""

    # (K,) names in the order of the rows of `weights`
    labels: tuple[str, ...]
    # (F,) means of the features
    centre: np.ndarray
    # (F,) deviations of the features
    scale: np.ndarray
    # (K, F)
    weights: np.ndarray
    # (K,)
    bias: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: Sequence[str], shrinkage: float = 0.15) -> ShrinkageLDA:
        """Fit to examples. Classes weigh the same, however many examples each has.

        Args:
            features: (N, F).
            labels: N names.
            shrinkage: Share of the identity in the covariance, 0 to 1.

        Raises:
            ValueError: There are fewer than two labels.
        """
        names = tuple(sorted(set(labels)))
        if len(names) < 2:
            raise ValueError(f"a classifier needs examples of at least two labels, not {list(names)}")
        x = np.asarray(features, dtype=np.float64)
        index = np.array([names.index(label) for label in labels])
        centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        z = (x - centre) / scale
        means = np.stack([z[index == k].mean(axis=0) for k in range(len(names))])  # (K, F)
        within = z - means[index]
        covariance = within.T @ within / max(len(z) - len(names), 1)
        average = np.trace(covariance) / len(covariance)
        covariance = (1 - shrinkage) * covariance + shrinkage * max(average, 1e-6) * np.eye(len(covariance))
        weights = np.linalg.solve(covariance, means.T).T
        return cls(names, centre, scale, weights, -0.5 * np.einsum("kf,kf->k", means, weights))

    def predict(self, features: np.ndarray) -> list[str]:
        """Labels of (N, F) features. Features are cut at 4 deviations: one odd number must not decide alone."""
        z = np.clip((np.atleast_2d(features) - self.centre) / self.scale, -4, 4)
        return [self.labels[k] for k in (z @ self.weights.T + self.bias).argmax(axis=1)]
