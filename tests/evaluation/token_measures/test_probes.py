"""Linear probes of planted tokens."""

import numpy as np
import pytest

from codec.io.errors import UserError
from codec.streams import ALL_STREAMS
from evaluation.token_measures.probes import probe
from tests.evaluation.token_measures.planted import CODES, coded, plant

SPLITS = ("train", "train", "dev", "test")


def labelled(folder, plan, count=80, **fields):
    """Clips whose ids `plan` makes of (rng, number), with what is known of them."""
    rng, clips = np.random.default_rng(0), []
    for i in range(count):
        ids, known = plan(rng, i // 4)
        clips.append(plant(folder, f"c{i}", ids, split=SPLITS[i % 4], **known, **fields))
    return clips


def test_a_label_that_the_ids_are_is_read_and_one_that_they_are_not_is_chance(tmp_path):
    def plan(rng, i):
        other = ("x", "y")[int(rng.integers(2))]
        return 8 * [1 + i % 3], {"labels": {"class": "abc"[i % 3], "other": other}}

    made = coded(tmp_path, labelled(tmp_path, plan))
    found = probe(made, "codes", "class")
    assert found.estimate.value == 1.0 and found.estimate.n == 20 and found.chance == pytest.approx(0.35)
    assert found.note.startswith("accuracy") and "40 clips" in found.note
    assert found.original.value > 0.9  # three levels have three spectra
    other = probe(made, "codes", "other")
    assert abs(other.estimate.value - 0.5) < 4 * other.estimate.stderr + 0.1
    assert probe(made, ALL_STREAMS, "class").estimate == found.estimate  # there is one stream


def test_numbers_are_read_with_r2_and_words_with_f1(tmp_path):
    def plan(rng, i):
        share = i % 5
        return share * [2] + (8 - share) * [9], {
            "labels": {"bpm": str(60 + 10 * share)},
            "text": "one" if share > 2 else "two",
        }

    made = coded(tmp_path, labelled(tmp_path, plan, count=120))
    number, words = probe(made, "codes", "bpm"), probe(made, "codes", "words")
    assert number.note.startswith("R2") and number.estimate.value > 0.98 and number.chance == 0.0
    assert words.note.startswith("F1") and words.estimate.value == 1.0 and words.chance < 0.9


def test_speakers_are_told_apart_within_the_training_clips(tmp_path):
    clips = labelled(tmp_path, lambda rng, i: (6 * [1 + i % 4], {"speaker": f"s{i % 4}"}), count=160)
    found = probe(coded(tmp_path, clips), "codes", "speaker")
    assert found.estimate.value == 1.0 and found.estimate.n == 12 and found.chance == 0.25
    with pytest.raises(UserError, match="fewer than two speakers"):
        probe(coded(tmp_path, clips[:8]), "codes", "speaker")


def test_what_cannot_be_probed_is_said(tmp_path):
    clips = labelled(
        tmp_path, lambda rng, i: ([int(rng.integers(CODES))], {"labels": {"same": "a", "name": f"n{i}"}}), 320
    )
    made = coded(tmp_path, clips)
    with pytest.raises(UserError, match="'same' cannot be probed.*two classes"):
        probe(made, "codes", "same")
    with pytest.raises(UserError, match="'name' has .* values"):
        probe(made, "codes", "name")
    with pytest.raises(UserError, match="no clip of split 'train' knows its 'missing'"):
        probe(made, "codes", "missing")
