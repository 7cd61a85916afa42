"""Rewards against examples made by hand: what is right earns 1, what is wrong less, and tricks earn nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditory_sentences.builders.analysis import write_analysis
from auditory_sentences.corpora.clip import Clip
from training.rl.rewards import REWARDS, read_key, verified, weighted_mean

SPEECH = Clip(
    "s", "s.wav", "speech", "train", text="Seven, three!", caption="a voice", labels={"speed": "slow", "gender": "male"}
)
MUSIC = Clip(
    "m",
    "m.wav",
    "music",
    "train",
    caption="a flute",
    labels={"bpm": "100", "key": "C major", "instrument": "flute", "tempo": "medium", "note_count": "8"},
)
ALL = dict.fromkeys(REWARDS, 1.0)


def reward(name: str, clip: Clip, analysis: str) -> float:
    return REWARDS[name].score(clip, analysis)


def details(text: str) -> str:
    return f"summary: x details: {text}"


@pytest.mark.parametrize(
    ("clip", "names"),
    [(SPEECH, {"format", "words", "tags"}), (MUSIC, {"format", "tags", "tempo", "key", "count"})],
)
def test_the_truth_earns_everything_that_applies_and_silence_nothing(clip, names):
    assert verified(clip, write_analysis(clip), ALL) == dict.fromkeys(names, 1.0)
    assert verified(clip, "", ALL) == dict.fromkeys(names, 0.0)


def test_only_what_is_named_is_verified():
    assert verified(SPEECH, "", {"words": 2.0}) == {"words": 0.0}


@pytest.mark.parametrize(
    ("said", "expected"),
    [("seven three", 1), ("seven", 0.5), ("seven four", 0.5), ("one two three four", 0), ("seven three " * 3, 0)],
)
def test_words(said, expected):
    assert reward("words", SPEECH, f"summary: x words: {said}") == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("gender: male, speed: slow", 1),
        ("Speed: Slow, GENDER: male", 1),
        ("gender: male", 2 / 3),
        ("gender: male, speed: fast", 1 / 2),
        ("gender: male, gender: female, speed: slow, speed: fast", 2 / 3),  # naming everything
        ("gender: male, gender: male, speed: slow", 4 / 5),
        ("gender: male, speed: slow, mood: happy", 4 / 5),
        ("male, slow", 0),
    ],
)
def test_tags(said, expected):
    assert reward("tags", SPEECH, details(said)) == pytest.approx(expected)


def test_labels_of_other_rewards_are_no_tags():
    assert reward("tags", MUSIC, details("instrument: flute, tempo: medium, bpm: 7, key: A minor")) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [("100", 1), ("104", 1), ("105", 0), ("96", 1), ("200", 0.5), ("51", 0.5), ("150", 0), ("fast", 0), ("nan", 0)],
)
def test_tempo(said, expected):
    assert reward("tempo", MUSIC, details(f"bpm: {said}")) == expected


def test_two_tempi_earn_nothing():
    assert reward("tempo", MUSIC, details("bpm: 100, bpm: 90")) == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [("C major", 1), ("c Major", 1), ("G major", 0.5), ("F major", 0), ("A minor", 0.3), ("C minor", 0.2), ("x", 0)],
)
def test_key(said, expected):
    assert reward("key", MUSIC, details(f"key: {said}")) == expected


def test_the_relative_major_of_a_minor_key():
    minor = Clip("m", "m.wav", "music", "train", labels={"key": "A minor"})
    assert reward("key", minor, details("key: C major")) == 0.3
    assert reward("key", minor, details("key: F# major")) == 0


def test_keys_have_several_spellings():
    assert read_key("F# minor") == read_key("f sharp minor") == read_key("Gb minor") == (6, "minor")
    assert read_key("H major") is None and read_key(None) is None


@pytest.mark.parametrize(
    ("said", "expected"), [("8", 1), ("6", 0.75), ("16", 0.5), ("0", 0), ("-8", 0), ("inf", 0), ("nan", 0), ("many", 0)]
)
def test_count(said, expected):
    assert reward("count", MUSIC, details(f"note_count: {said}")) == expected


@given(st.text() | st.builds(details, st.text()) | st.builds("summary: x words: {}".format, st.text()))
def test_every_reward_of_any_text_lies_in_the_unit_interval(text):
    for clip in (SPEECH, MUSIC):
        assert all(0 <= value <= 1 for value in verified(clip, text, ALL).values())


def test_the_weighted_mean_is_over_what_applies():
    assert weighted_mean({"words": 1.0, "format": 0.0}, {"words": 3.0, "format": 1.0, "key": 5.0}) == 0.75
    assert weighted_mean({}, {"key": 5.0}) == 0.0
