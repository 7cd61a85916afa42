"""All metrics by name."""

from __future__ import annotations

# Imported for the metrics that they register, in this order.
from evaluation.metrics import captions, distribution, judged, music, waveforms, words  # noqa: F401
from evaluation.metrics.metric import METRICS, Metric, metric

__all__ = ["METRICS", "Metric", "metric"]
