"""YAML read strictly; what recipes and tasks make of it is tested with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from auditory_sentences.corpora.read import describe
from codec.io.errors import UserError
from codec.io.reading import read_yaml
from codec.io.strict import parse


@dataclass(frozen=True)
class Inner:
    ways: int = 2

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise ValueError("at least 2 ways")


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] | None = None


def test_what_a_nested_part_refuses_is_named_with_its_place():
    assert parse(Outer, {"inner": [{"ways": 3}], "phrases": {"dog": ["hound"]}}, "f.yaml") == Outer(
        (Inner(3),), {"dog": ("hound",)}
    )
    with pytest.raises(UserError, match=r"^f.yaml: inner\[1\]: at least 2 ways$"):
        parse(Outer, {"inner": [{}, {"ways": 1}]}, "f.yaml")


def test_a_key_that_is_near_no_other_gets_the_known_ones():
    with pytest.raises(UserError, match="f.yaml: unknown key 'zzz'; known keys: inner, phrases"):
        parse(Outer, {"zzz": 1}, "f.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' stands twice, again on line 2"),
        ("? [a]\n: b", "the key a list or mapping is no text"),
        ("a: [", "cannot be read as YAML"),
        ("- a", "expected keys and values at the top"),
    ],
)
def test_files_that_do_not_serve_are_named(tmp_path, text, words):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=f"x.yaml: .*{words}"):
        read_yaml(tmp_path / "x.yaml")


def test_keys_can_be_brought_in(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: {<<: *a, b: 2}")
    assert read_yaml(tmp_path / "x.yaml")["c"] == {"b": 2}


def test_a_corpus_that_says_something_twice_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("kind: clips\npath: a\npath: b\n")
    with pytest.raises(UserError, match="x.yaml: cannot be read as YAML .*'path' stands twice"):
        describe(tmp_path / "x.yaml")
