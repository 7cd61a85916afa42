"""Keys and tempi beside the text of a label."""

import pytest

from evaluation.metrics.registry import METRICS


@pytest.mark.parametrize(
    ("found", "reference", "score"),
    [
        ([9.0, 1.0], "A minor", 1.0), ([1.0, 0.0], "C sharp major", 1.0), ([3.0, 1.0], "E flat minor", 1.0),
        ([3.0, 1.0], "D# minor", 1.0), ([7.0, 0.0], "C major", 0.5), ([9.0, 1.0], "C major", 0.3),
        ([0.0, 1.0], "C major", 0.2), ([6.0, 0.0], "C major", 0.0), ([], "C major", 0.0), (None, "C major", 0.0),
        ("G major", "C major", 0.5),
    ],
)  # fmt: skip
def test_near_keys_count_in_part(found, reference, score):
    pytest.importorskip("mir_eval")
    assert METRICS["key_score"].measure(found, reference) == (score, 1.0)


@pytest.mark.parametrize("reference", ["", "major", "H major", "C"])
def test_a_label_that_is_no_key_measures_nothing(reference):
    pytest.importorskip("mir_eval")
    assert METRICS["key_score"].measure([0.0, 0.0], reference) is None


@pytest.mark.parametrize(
    ("found", "near", "octaves"),
    [
        ([120.0], 1, 1),
        ([112.0], 1, 1),
        ([100.0], 0, 0),
        ([60.0], 0, 1),
        ([361.0], 0, 1),
        ([], 0, 0),
        (None, 0, 0),
        ("124", 1, 1),
    ],
)
def test_a_tempo_is_right_within_8_percent(found, near, octaves):
    assert METRICS["tempo_accuracy"].measure(found, "120") == (near, 1.0)
    assert METRICS["tempo_octave_accuracy"].measure(found, "120") == (octaves, 1.0)
    assert METRICS["tempo_accuracy"].measure(found, "fast") is None
