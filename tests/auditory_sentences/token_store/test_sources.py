"""Recordings of a shard: what tells that one was replaced, and a list of them that is damaged."""

import json
import os
from dataclasses import replace

import pytest

from auditory_sentences.token_store.manifest import Damaged, ShardEntry
from auditory_sentences.token_store.sources import Source, measure, read_sources, sources_path, write_sources
from codec.io.errors import UserError

ENTRY = ShardEntry(file="shard-00003.arrow", bytes=10, sha256="a" * 64, clips=2, samples=100)
SOURCES = [Source("one", "/recordings/one.wav", "5 6 7", "b" * 64), Source("two", "/recordings/zwei ☃.wav")]


@pytest.fixture
def recording(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"sound")
    return str(tmp_path / "a.wav")


def test_a_recording_is_read_again_only_where_it_may_have_changed(recording, monkeypatch):
    first = measure("a", recording)
    assert first.stored and first.changed_at > 0
    os.utime(recording, ns=(1, first.changed_at + 10**9))
    touched = measure("a", recording, first)
    assert touched.sha256 == first.sha256 and touched.changed_at > first.changed_at
    monkeypatch.setattr("auditory_sentences.token_store.sources.sha256_of", lambda path: pytest.fail("read again"))
    assert measure("a", recording, touched) is touched


def test_a_replaced_recording_is_another(recording):
    first = measure("a", recording)
    with open(recording, "wb") as file:
        file.write(b"other")  # as long as before
    assert measure("a", recording, first).sha256 != first.sha256


@pytest.mark.parametrize(
    "name, message", [("none.wav", "no such file"), (".", "no ordinary file"), ("a\0b", "NUL|name")]
)
def test_what_is_no_recording_is_named(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        measure("a", f"{tmp_path}/{name}")


def test_a_list_is_read_as_it_was_written(tmp_path):
    write_sources(tmp_path, ENTRY, SOURCES)
    assert read_sources(tmp_path, ENTRY) == SOURCES
    assert [source.stored for source in SOURCES] == [True, False]


def edited(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["clips"].pop(),
        lambda values: values["clips"][0].reverse(),
        lambda values: values.pop("hash"),
        lambda values: values.update(shard="c" * 64),
    ],
)
def test_a_list_that_was_changed_is_damaged(tmp_path, change):
    write_sources(tmp_path, ENTRY, SOURCES)
    edited(sources_path(tmp_path, ENTRY), change)
    with pytest.raises(Damaged, match="sources-00003.json: .*corpus store"):
        read_sources(tmp_path, ENTRY)


@pytest.mark.parametrize("content", [None, b"", b"[1, 2]", b'{"clips": [', b"\xff\xfe\x00"])
def test_what_is_no_list_is_damaged(tmp_path, content):
    if content is not None:
        sources_path(tmp_path, ENTRY).write_bytes(content)
    with pytest.raises(Damaged, match="sources-00003.json"):
        read_sources(tmp_path, ENTRY)


def test_the_list_of_another_shard_is_damaged(tmp_path):
    write_sources(tmp_path, ENTRY, SOURCES)
    other = replace(ENTRY, sha256="d" * 64)
    with pytest.raises(Damaged, match="is not of the shard"):
        read_sources(tmp_path, other)
