import sys

import numpy as np
import pytest

from codec.errors import UserError
from evaluation.metrics import METRICS

RNG = np.random.default_rng(0)
NOISE = (0.1 * RNG.standard_normal(24_000)).astype(np.float32)


def test_word_error_rate_counts_all_three_kinds():
    # one substitution, one deletion, two insertions over 4 + 1 words
    found = METRICS["wer"].score(["the bat sat", "yes oh no"], ["the cat sat down", "Yes."])
    assert found.value == pytest.approx(4 / 5)


def test_word_error_rate_of_nothing_is_all_words():
    assert METRICS["wer"].score([None, ""], ["one two", "three"]).value == 1.0


def test_digits_and_case_do_not_count_as_errors():
    assert METRICS["wer"].score(["3 7"], ["Three seven!"]).value == 0.0


def test_word_accuracy_punishes_babble_but_not_below_zero():
    score = METRICS["word_accuracy"].score
    assert score(["one two three"], ["one two three"]).value == 1.0
    assert score(["one two"], ["one two three four"]).value == 0.5
    assert score(["one nine two nine"], ["one two"]).value == 0.0
    assert score(["a b c d e f g h i"], ["one"]).value == 0.0


def test_accuracy_counts_no_answer_as_wrong():
    found = METRICS["accuracy"].score(["dog", None, "cat", "dog"], ["dog", "dog", "dog", "dog"])
    assert found.value == 0.5 and found.n == 4


def test_mel_distance_is_zero_for_equal_and_the_gain_for_louder():
    score = METRICS["mel_distance"].score
    assert score([NOISE], [NOISE]).value == 0.0
    assert score([NOISE * 2], [NOISE]).value == pytest.approx(20 * np.log10(2), abs=0.01)
    assert score([NOISE * 2], [NOISE]).value < score([np.zeros_like(NOISE)], [NOISE]).value


def test_mel_distance_leaves_out_what_is_missing():
    found = METRICS["mel_distance"].score([None, NOISE], [NOISE, NOISE])
    assert found.n == 1 and found.value == 0.0


def test_stoi_orders_clean_noisy_and_unrelated():
    time = np.arange(48_000) / 24_000
    speech = np.sin(2 * np.pi * 150 * time) * (1 + np.sin(2 * np.pi * 4 * time)) * 0.2
    speech = (speech + 0.1 * np.sin(2 * np.pi * 1200 * time) * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32)
    noisy = speech + 0.1 * RNG.standard_normal(48_000).astype(np.float32)
    other = RNG.standard_normal(48_000).astype(np.float32)
    clean, bad, wrong = (METRICS["stoi"].score([x], [speech]).value for x in (speech, noisy, other))
    assert clean == pytest.approx(1.0, abs=1e-3) and clean > bad > wrong


@pytest.mark.parametrize("length", [1, 2, 599, 600, 1_024, 2_400, 9_599])
def test_stoi_of_a_clip_that_is_too_short_is_no_measurement_and_its_mel_distance_is_one(length):
    clips, others = [NOISE[:length], NOISE], [NOISE[:length] / 2, NOISE]
    assert METRICS["stoi"].score(others[:1], clips[:1]).n == 0
    assert METRICS["stoi"].score(others, clips).n == 1  # the other one is scored
    distance = METRICS["mel_distance"].score(others, clips)
    assert distance.n == 2 and 0 < distance.value < 12


@pytest.mark.parametrize("name", ["mel_distance", "stoi"])
def test_silence_and_constant_clips_have_finite_scores_or_none(name):
    sounds = [level * np.ones(12_000, np.float32) for level in (0.0, 0.3, 1e-30)] + [NOISE[:12_000]]
    for reading in sounds:
        for reference in sounds:
            measured = METRICS[name].measure(reading, reference)
            assert measured is None or np.isfinite(measured).all()


def test_pesq_orders_clean_noisy_and_noisier():
    pytest.importorskip("pesq", reason="the extra 'quality' is not installed")
    time = np.arange(48_000) / 24_000
    speech = (
        sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20)) * (1 + np.sin(2 * np.pi * 3 * time)) * 0.1
    )
    noise = RNG.standard_normal(48_000)
    score = METRICS["pesq"].score
    clean, bad, worse = (score([speech + a * noise], [speech]).value for a in (0, 0.005, 0.05))
    assert clean == pytest.approx(4.64, abs=0.02) and clean > bad > worse > 1
    assert score([speech[:2400]], [speech[:2400]]).n == 0  # 0.1 s is too short for it
    assert score([None], [speech]).n == 0


def test_pesq_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(UserError, match=r"uniaudio\[quality\]"):
        METRICS["pesq"].score([NOISE], [NOISE])


def test_perplexity():
    found = METRICS["perplexity"].score([(2 * np.log(8), 2), (0.0, 1)], ["", ""])
    assert found.value == pytest.approx(4.0)  # 8 * 8 * 1, three tokens


def test_chance_of_labels_is_one_over_the_choices():
    assert METRICS["accuracy"].chance(["a", "b"], [4, 2]) == pytest.approx(0.375)


def test_chance_of_words_is_another_answer_or_silence():
    assert METRICS["wer"].chance(["one two", "one three"], []) == 0.5
    assert METRICS["wer"].chance(["one", "two three four five"], []) == 1.0  # silence beats a longer wrong answer
    assert METRICS["word_accuracy"].chance(["one two", "one three"], []) == 0.5
    assert METRICS["wer"].chance(["one"], []) is None


def test_every_metric_explains_itself():
    for metric in METRICS.values():
        assert metric.direction in ("higher", "lower") and metric.measure.__doc__
