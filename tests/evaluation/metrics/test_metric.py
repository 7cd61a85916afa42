import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from evaluation.metrics.registry import METRICS

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


OF_WAVEFORMS = sorted(name for name, metric in METRICS.items() if metric.takes == "audio")


@pytest.mark.parametrize("name", OF_WAVEFORMS)
def test_silence_in_the_place_of_speech_is_scored_and_is_worse_than_speech(name):
    """An answer that holds nothing must not be left out of the mean, whatever measures it."""
    if name == "pesq":
        pytest.importorskip("pesq", reason="the extra 'quality' is not installed")
    speech = buzz()
    good, silent, flat = (METRICS[name].score([x], [speech]) for x in (0.9 * speech, 0 * speech, 0 * speech + 0.1))
    assert good.n == silent.n == flat.n == 1
    for bad in (silent, flat):
        assert bad.value < good.value if METRICS[name].direction == "higher" else bad.value > good.value


@pytest.mark.parametrize("name", OF_WAVEFORMS)
def test_silence_and_constant_clips_have_finite_scores_or_none(name):
    if name == "pesq":
        pytest.importorskip("pesq", reason="the extra 'quality' is not installed")
    sounds = [level * np.ones(12_000, np.float32) for level in (0.0, 0.3, 1e-30)] + [NOISE[:12_000]]
    for reading in sounds:
        for reference in sounds:
            measured = METRICS[name].measure(reading, reference)
            assert measured is None or np.isfinite(measured).all()


def buzz():
    """Two seconds with the harmonics and the slow rise and fall of speech."""
    time = np.arange(48_000) / 24_000
    return sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 20)) * (1 + np.sin(6 * np.pi * time)) * 0.1


def test_pesq_orders_clean_noisy_and_noisier():
    pytest.importorskip("pesq", reason="the extra 'quality' is not installed")
    speech, noise = buzz(), RNG.standard_normal(48_000)
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


WORDS = st.lists(st.sampled_from(["one", "two", "three", "it's"]), max_size=6)
SPEECH = WORDS.map(" ".join)
SILENCE = st.sampled_from(["", "...", "!?", " ", "\n", "–"])


def wer(predictions, references):
    return METRICS["wer"].score(predictions, references).value


@given(SPEECH, SPEECH)
def test_no_error_where_and_only_where_words_are_equal(reading, reference):
    assert (wer([reading], [reference]) == 0) == (reading.split() == reference.split())
    assert wer([reading.upper() + "!"], [reference]) == wer([reading], [reference])


@given(WORDS, WORDS)
def test_errors_are_the_same_both_ways(one, other):
    there, back = wer([" ".join(one)], [" ".join(other)]), wer([" ".join(other)], [" ".join(one)])
    assert there * max(1, len(other)) == pytest.approx(back * max(1, len(one)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(SPEECH, SPEECH), min_size=1, max_size=5), st.lists(st.tuples(SPEECH, SPEECH), max_size=5))
def test_errors_and_words_of_two_sets_add_up(first, second):
    def errors(pairs):
        words = sum(len(reference.split()) for _, reference in pairs)
        return (wer(*zip(*pairs, strict=True)) * max(1, words), words) if pairs else (0, 0)

    (a, n), (b, m), (both, words) = errors(first), errors(second), errors(first + second)
    assert words == n + m and both == pytest.approx(a + b)


@given(WORDS.filter(bool), WORDS)
def test_words_too_many_count_one_each(reference, more):
    said = " ".join(reference)
    assert wer([" ".join(reference + more)], [said]) == pytest.approx(len(more) / len(reference))


@settings(max_examples=50, deadline=None)
@given(WORDS, SILENCE, SILENCE)
def test_silence_for_silence_is_no_error_and_invented_words_are(invented, silence, other):
    assert wer([silence], [other]) == wer([None], [other]) == 0
    assert wer([" ".join(invented)], [other]) == len(invented)  # nothing at all is said: over one word
    assert wer(["one two", " ".join(invented)], ["one two", other]) == pytest.approx(len(invented) / 2)


@given(WORDS.filter(bool), SILENCE)
def test_word_accuracy_of_silence(invented, silence):
    score = METRICS["word_accuracy"].score
    assert score([""], [silence]).value == 1 and score([" ".join(invented)], [silence]).value == 0
    assert score(["one", " ".join(invented)], ["one", silence]).value == 0.5


def test_references_without_words_are_counted():
    assert METRICS["wer"].empty(["one", "...", "", "!"]) == 3
    assert METRICS["accuracy"].empty(["", "dog"]) == 0


def test_silence_leaves_a_standard_error_that_is_a_number():
    for references in (["...", "!", ""], ["one two", "...", "!"]):
        found = METRICS["wer"].score(["a b", "", "c"], references)
        assert found.n == 3 and 0 < found.stderr < 10


def test_where_the_right_answer_names_no_label_nothing_is_measured():
    found = METRICS["accuracy"].score([None, "dog"], [None, "dog"])
    assert (found.value, found.n) == (1.0, 1)
    assert METRICS["accuracy"].chance(["dog"], [0]) is None
