"""People's text in a vocabulary of few words: what is rewritten, what is dropped and named."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.text_normaliser import normalise
from lm.text_tokenizer import SentencePieceTokenizer, TextTokenizer

STARTER = TextTokenizer.from_pretrained("starter/text_model")
USES = ("words", "description", "text")


def trained(*texts):
    return SentencePieceTokenizer.train([*texts, "seven three one"] * 20, 400)


@pytest.mark.parametrize(
    ("text", "said", "dropped"),
    [
        ("three seven one", "three seven one", ""),
        ("371", "three seven one", ""),
        ("  the red \t\n bird ", "the red bird", ""),
        ("THE RED Bird, Sings!", "the red bird sings", ""),
        ("café", "cafe", ""),
        ("it’s “all” — well…", "its all well", ""),
        ("１２ ٣ 2²", "one two three two two", ""),
        ("3.5, -7 and .5", "three point five minus seven and zero point five", ""),
        ("1st 22nd 5km mp3", "first two second five km mp three", ""),
        ("1,000 is 50%", "one zero zero zero is five zero percent", ""),
        ("you & me", "you and me", ""),
        ("costs $5", "costs five", "$"),
        ("and/or", "and or", "/"),
        ("a \U0001f426 sings", "a sings", "\U0001f426"),
        ("a\0b\x1b", "a b", "\0\x1b"),
        ("\u200fone\u200d", "one", ""),
        ("one два", "one", "два"),
        ("中文", "", "中文"),
        ("<transcription>", "transcription", "<>"),
        ("a\udcff", "a", "\udcff"),
        ("!!!", "", ""),
        ("", "", ""),
    ],
)
def test_words_for_a_model_of_small_letters(text, said, dropped):
    assert normalise(text, STARTER, "words") == (said, dropped)


@pytest.mark.parametrize(
    ("use", "text", "said"),
    [
        ("description", "A slow piano melody in C major", "a slow piano melody in C major"),
        ("description", "A SLOW PIANO MELODY IN G MAJOR.", "a slow piano melody in G major."),
        ("description", "a melody at 120 bpm!", "a melody at one two zero bpm"),
        ("text", "Which instrument plays?", "Which instrument plays?"),
        ("text", "WHICH KEY, C or D?", "which key, C or D?"),
        ("text", "Xylophone, guitar or violin?", "xylophone, guitar or violin?"),
    ],
)
def test_keys_of_music_and_questions_keep_their_capitals(use, text, said):
    assert normalise(text, STARTER, use) == (said, "")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(USES))
def test_whatever_is_left_has_pieces_of_its_own(text, use):
    said, dropped = normalise(text, STARTER, use)
    pieces = STARTER._pieces
    assert not any(pieces.is_byte(i) or pieces.is_unknown(i) for i in STARTER.encode(said))
    assert set(dropped) <= set(text) | set("⁄") or any(not c.isascii() for c in text)
    assert said == " ".join(said.split())


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.ascii_letters + string.digits + " ", max_size=30))
def test_letters_and_digits_are_never_dropped(text):
    assert normalise(text, STARTER, "words").dropped == ""


def test_capitals_alone_are_spoken_to_in_capitals():
    shouting = SentencePieceTokenizer.train([string.ascii_uppercase, "THE RED BIRD SINGS"] * 20, 400)
    assert normalise("the red 7", shouting, "words") == ("THE RED SEVEN", "")


@pytest.mark.parametrize("use", USES)
def test_a_model_that_knows_everything_gets_the_text_as_it_is(use):
    wide = trained(string.ascii_letters, string.digits, "., ? !", "A B, c? d! 3.")
    assert wide.knows_everything
    for text in ("371, THE  red!", "\U0001f426 café"):
        assert normalise(text, wide, use) == (text, "")
    assert normalise("a\udcff", wide, use) == ("a", "\udcff")


def test_marks_stay_where_the_model_has_all_of_them():
    marked = trained("one, two. three? four!", string.ascii_lowercase)
    assert normalise("One, two!", marked, "words") == ("one, two!", "")
