import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.words import as_number, normalise_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  World!", "hello world"),
        ("It’s the dogs' bone", "it's the dogs bone"),
        ("Flight 42", "flight four two"),
        ("a well-known 'fact'", "a well known fact"),
        ("50% & more_less", "five zero percent and more less"),
        ("ﬁve CAFÉ", "five café"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_golden(text, words):
    assert normalise_words(text) == words


@given(st.text(max_size=60))
def test_idempotent_and_in_single_spaces(text):
    once = normalise_words(text)
    assert normalise_words(once) == once
    assert once == " ".join(once.split())


@pytest.mark.parametrize(
    ("text", "number"),
    [("120", 120.0), ("-3.5", -3.5), ("1e3", 1000.0), ("dog", None), ("", None), (None, None), ("7a", None)],
)
def test_a_number_is_told_from_a_name(text, number):
    assert as_number(text) == number
