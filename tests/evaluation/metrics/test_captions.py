"""Caption metrics: what the field's own tool gives, and what must hold for any captions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.registry import METRICS

REFERENCES = [
    "a dog barks loudly in the rain", "a man speaks while a dog barks", "rain falls on a tin roof",
    "a bell rings twice",
]  # fmt: skip
SAID = [
    "a dog barks in the rain",
    "A man speaks, and a dog barks.",
    "water runs",
    "the bell rings twice and twice again",
]
words = st.lists(st.sampled_from(["rain", "dog", "a", "bell", "loud", "far"]), min_size=1, max_size=9).map(" ".join)
captions = st.lists(words, min_size=2, max_size=8)


def each(name, said, right):
    return [pair[0] for pair in METRICS[name].scored(said, right)[1]]


def test_values_of_pycocoevalcap():
    """Version 1.2, on the same words."""
    assert each("cider", SAID, REFERENCES) == pytest.approx([4.49371689, 3.90989729, 0, 3.01148219], abs=1e-7)
    assert each("rouge_l", SAID, REFERENCES) == pytest.approx([0.91044776, 0.85714286, 0, 0.57366771], abs=1e-7)
    assert METRICS["cider"].score(SAID, REFERENCES).value == pytest.approx(2.853774094)


@given(captions, st.randoms())
def test_whatever_the_captions(right, random):
    said = random.sample(right, len(right))
    for name, most in (("cider", 10.0), ("rouge_l", 1.0)):
        values = each(name, said, right)
        assert all(0 <= value <= most + 1e-9 for value in values)
        itself = each(name, right, right)
        assert all(value <= best + 1e-9 for value, best in zip(values, itself, strict=True))
        order = random.sample(range(len(right)), len(right))
        moved = each(name, [said[i] for i in order], [right[i] for i in order])
        assert moved == pytest.approx([values[i] for i in order])


def test_the_same_words_are_the_best_and_none_the_worst():
    assert each("cider", REFERENCES, REFERENCES) == pytest.approx([10.0] * 4)
    assert each("rouge_l", REFERENCES, REFERENCES) == [1.0] * 4
    for nothing in ("", None, "...", "zzz"):
        assert each("cider", [nothing] * 4, REFERENCES) == each("rouge_l", [nothing] * 4, REFERENCES) == [0.0] * 4


def test_one_caption_alone_has_no_cider():
    estimate, measured = METRICS["cider"].scored(["a dog"], ["a dog"])
    assert (estimate.value, measured) == (None, [None])
    assert METRICS["cider"].chance(REFERENCES, []) < 1 and np.isfinite(METRICS["rouge_l"].chance(REFERENCES, []))
