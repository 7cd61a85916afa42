"""The analysis of a clip is written from its labels, and read back whatever a model makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditory_sentences.builders.analysis import is_well_formed, read_analysis, read_labels, write_analysis
from auditory_sentences.corpora.clip import Clip

SPEECH = Clip(
    "s",
    "s.wav",
    "speech",
    "train",
    text="seven three",
    caption="a low voice",
    labels={"speed": "slow", "accent": "scottish"},
)
MUSIC = Clip(
    "m",
    "m.wav",
    "music",
    "train",
    caption="a flute",
    labels={"bpm": "90", "key": "C major", "snr_db": "3.1", "words": "x"},
)


def test_levels_in_order_and_only_what_can_be_heard():
    assert write_analysis(SPEECH) == "summary: a low voice details: accent: scottish, speed: slow words: seven three"
    assert write_analysis(MUSIC) == "summary: a flute details: bpm: 90, key: C major"
    assert write_analysis(Clip("c", "c.wav", "sound", "train", caption="a bell")) == ""  # a caption is no analysis
    assert write_analysis(Clip("c", "c.wav", "sound", "train")) == ""


@pytest.mark.parametrize("clip", [SPEECH, MUSIC])
def test_what_is_written_is_well_formed_and_read_back(clip):
    text = write_analysis(clip)
    levels = read_analysis(text)
    assert is_well_formed(clip, text) and is_well_formed(clip, text.replace(" details", "\ndetails"))
    assert levels["summary"] == clip.caption and levels.get("words", "") == clip.text
    assert dict(read_labels(levels["details"])) == {
        k: v for k, v in clip.labels.items() if k not in ("snr_db", "words")
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a low voice",
        "well, summary: a low voice details: speed: slow words: one",
        "summary: a low voice words: one",
        "summary: details: speed: slow words: one",
        "details: speed: slow summary: a low voice words: one",
        "summary: a summary: b details: speed: slow words: one",
        "summary: a low voice details: speed: slow words: one details: speed: fast",
    ],
)
def test_other_forms_are_not(text):
    assert not is_well_formed(SPEECH, text)


def test_words_where_nobody_speaks_are_ill_formed():
    assert not is_well_formed(MUSIC, write_analysis(MUSIC) + " words: la la")


@given(st.text(), st.lists(st.sampled_from(["summary:", "details:", " words:", ",", "key: C", "\n"])))
def test_reading_never_fails(text, pieces):
    for said in (text, " ".join(pieces), text.join(pieces)):
        levels = read_analysis(said)
        assert list(levels) == [level for level in ("summary", "details", "words") if level in levels]
        assert isinstance(read_labels(levels.get("details", said)), list)
        assert is_well_formed(SPEECH, said) in (True, False)
