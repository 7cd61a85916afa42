"""Linear discriminant analysis on planted classes."""

import numpy as np
import pytest

from evaluation.judges.classifier import ShrinkageLDA


def test_classifier_separates_what_a_line_separates_and_weighs_classes_alike():
    rng = np.random.default_rng(0)
    centres = {"a": (0, 0, 0), "b": (3, 0, 0), "c": (0, 3, 0)}
    counts = {"a": 90, "b": 10, "c": 10}
    x = np.concatenate([rng.standard_normal((counts[k], 3)) * 0.7 + v for k, v in centres.items()])
    y = [k for k in centres for _ in range(counts[k])]
    model = ShrinkageLDA.fit(x, y, shrinkage=0.01)
    assert model.predict(np.array(list(centres.values()), dtype=float)) == ["a", "b", "c"]
    assert model.predict([[1.7, 0, 0]]) == ["b"]  # nearer to b, though a is nine times as common
    with pytest.raises(ValueError, match="at least two labels"):
        ShrinkageLDA.fit(x, ["a"] * len(x))
