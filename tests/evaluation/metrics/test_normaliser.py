import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.normaliser import normalise


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
    assert normalise(text) == words


@given(st.text(max_size=60))
def test_idempotent_and_in_single_spaces(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == " ".join(once.split())
