"""The recordings of a shard: measured, listed, and read back or refused."""

import os

import pytest

from auditory_sentences.token_store.manifest import Damaged, ShardEntry
from auditory_sentences.token_store.sources import Source, measure, read_sources, sources_path, write_sources
from codec.io.errors import UserError
from codec.io.files import sha256_of

ENTRY = ShardEntry(file="shard-00003.arrow", bytes=1, sha256="a" * 64, clips=1, samples=1)
SOURCES = [Source("é", "/a/é.wav", "10 20 30", "b" * 64), Source("gone", "/a/gone.wav")]


def test_a_recording_is_read_again_only_where_the_system_says_that_it_changed(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    first = measure("a", str(path))
    assert (first.id, first.path, first.sha256) == ("a", str(path), sha256_of(path)) and first.stored
    assert first.changed_at == max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    assert measure("b", str(path), first) is first
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    assert measure("a", str(path), first).sha256 == sha256_of(path) != first.sha256


@pytest.mark.parametrize(
    ("name", "said"), [("none.wav", "no such file"), (".", "is no ordinary file"), ("a\0", "not a name")]
)
def test_what_is_no_recording_is_refused(tmp_path, name, said):
    with pytest.raises(UserError, match=said):
        measure("a", f"{tmp_path}/{name}")


def test_what_is_written_is_read(tmp_path):
    write_sources(tmp_path, ENTRY, SOURCES)
    assert sources_path(tmp_path, ENTRY).name == "sources-00003.json"
    assert read_sources(tmp_path, ENTRY) == SOURCES
    assert [source.stored for source in SOURCES] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("/a/", "/b/", "damaged"), ("gone", 'go"ne', "damaged|not JSON"), ("a" * 64, "c" * 64, "damaged")],
)
def test_a_changed_list_is_damaged(tmp_path, old, new, said):
    write_sources(tmp_path, ENTRY, SOURCES)
    path = sources_path(tmp_path, ENTRY)
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(Damaged, match=said):
        read_sources(tmp_path, ENTRY)


def test_a_list_of_another_shard_or_none_is_damaged(tmp_path):
    with pytest.raises(Damaged, match="missing"):
        read_sources(tmp_path, ENTRY)
    write_sources(tmp_path, ENTRY, SOURCES)
    other = ShardEntry(file=ENTRY.file, bytes=1, sha256="c" * 64, clips=1, samples=1)
    with pytest.raises(Damaged, match="is not of the shard"):
        read_sources(tmp_path, other)
