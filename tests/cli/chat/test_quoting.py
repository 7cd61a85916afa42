"""Lines of a chat, parsed as a shell would."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.chat import quoting
from codec.io.errors import UserError


def texts(line):
    return [word.text for word in quoting.words(line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("a b", ["a", "b"]),
        ("  a\t b ", ["a", "b"]),
        ('"a b" c', ["a b", "c"]),
        ("'a b' c", ["a b", "c"]),
        (r"a\ b c", ["a b", "c"]),
        ('""', [""]),
        ('a"b c"d', ["ab cd"]),
        (r'"a \"b\""', ['a "b"']),
        (r"'it'\''s'.wav", ["it's.wav"]),
        (r"it\'s", ["it's"]),
        ("it's Bob's", ["it's", "Bob's"]),
        (r"C:\sounds\a.wav", [r"C:\sounds\a.wav"]),
        ('"a => b"', ["a => b"]),
        ("a\\", ["a\\"]),
    ],
)
def test_words(line, expected):
    assert texts(line) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab \"'\\=>~*$\t", max_size=6), max_size=4))
def test_what_a_shell_quotes_is_read_as_a_shell_would(words):
    assert texts(shlex.join(words)) == words


@pytest.mark.parametrize("line", ['"', '"a', "a 'b", '"a" "', r'"a\"'])
def test_a_mark_that_is_not_closed_is_named(line):
    with pytest.raises(UserError, match="not closed"):
        quoting.words(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a => b", ("a", "b")),
        ("a=>b", ("a", "b")),
        ("a =>", ("a", "")),
        ("=> b", ("", "b")),
        ('"x => y.wav" => b', ('"x => y.wav"', "b")),
        (r"x \=> y => b", (r"x \=> y", "b")),
        ("a => b => c", ("a", "b => c")),
        ("a = > b", None),
        ('"a => b"', None),
    ],
)
def test_sides(line, expected):
    assert quoting.sides(line) == expected


def test_one_and_first():
    assert quoting.one('"a b.wav"') == "a b.wav"
    assert quoting.one(" my file.wav ") == "my file.wav"
    assert quoting.first("'a b.wav' what's this?") == ("a b.wav", "what's this?")
    assert quoting.first(" ") == ("", "")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab \"'\\=>", max_size=30))
def test_no_line_ends_in_anything_but_words_or_a_sentence(line):
    for parse in (quoting.words, quoting.one, quoting.first, quoting.sides):
        try:
            parse(line)
        except UserError as error:
            assert "not closed" in str(error)


def test_a_switch_stands_bare_at_the_end():
    assert quoting.flag("a.wav --room", "--room") == ("a.wav", True)
    assert quoting.flag("--room", "--room") == ("", True)
    for line in ("a.wav", "--room a.wav", "'a --room'", 'a.wav "--room"', "a--room"):
        assert quoting.flag(line, "--room") == (line, False)


def test_a_file_and_the_words_about_it():
    for line in ("'a b.wav' it's slow", "'a b.wav' => it's slow", r"a\ b.wav =>it's slow"):
        assert quoting.file_and_words(line, "usage") == (Path("a b.wav"), "it's slow")
    for line in ("", "a.wav", "a.wav =>", "'' words", "a.wav ''"):
        with pytest.raises(UserError, match="write usage"):
            quoting.file_and_words(line, "usage")
