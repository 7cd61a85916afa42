"""Builds: begun once, never over what is there, through bad clips, full disks and kills."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from codec.io.errors import UserError
from codec.io.locks import locked
from tests.factories.tokenizer import FakeTokenizer


def test_a_finished_store_is_opened_not_built(clips, tmp_path):
    build_store(clips, FakeTokenizer(), tmp_path)
    tokenizer = FakeTokenizer()
    build_store(clips, tokenizer, tmp_path)
    assert tokenizer.batches == []


def test_another_tokenizer_is_refused_naming_both(clips, tmp_path):
    build_store(clips, FakeTokenizer(), tmp_path)
    one, other = FakeTokenizer().fingerprint, FakeTokenizer(shift=1).fingerprint
    assert one != other
    with pytest.raises(UserError, match=rf"{one}.*{other}"):
        build_store(clips, FakeTokenizer(shift=1), tmp_path)
    assert TokenStore(tmp_path).fingerprint == one


def test_one_builder_at_a_time(clips, tmp_path):
    with locked(tmp_path, "another build"), pytest.raises(UserError, match="in use by another build, process"):
        build_store(clips, FakeTokenizer(), tmp_path)


def test_ids_that_stand_twice_are_refused(clips, tmp_path):
    with pytest.raises(UserError, match="two clips are called 'c3'"):
        build_store([*clips, clips[3]], FakeTokenizer(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_shards_without_a_manifest_are_not_written_over(clips, store):
    (store / MANIFEST).unlink()
    before = (store / "shard-00000.arrow").read_bytes()
    with pytest.raises(UserError, match=f"{MANIFEST} is missing; restore"):
        build_store(clips, FakeTokenizer(), store)
    assert (store / "shard-00000.arrow").read_bytes() == before


def with_bad(clips, tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.full(24_000, np.nan), 24_000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", np.zeros(24_000 * 4), 24_000)
    bad = [Clip(n, str(tmp_path / f"{n}.wav"), "sound", "train") for n in ("empty", "missing", "nan", "long")]
    return [bad[0], *clips[:5], bad[1], bad[2], *clips[5:9], bad[3]]


def test_unreadable_clips_are_listed_and_the_rest_is_stored(clips, tmp_path, capsys):
    store = build_store(with_bad(clips, tmp_path), FakeTokenizer(), tmp_path / "store", max_seconds=3, shard_clips=4)
    assert [clip.id for clip in store] == [f"c{i}" for i in range(9)]
    assert [failure.id for failure in store.failures] == ["empty", "missing", "nan", "long"]
    said = capsys.readouterr().err
    assert "4 of 13 clips could not be read" in said
    for word in ("empty", "missing: ", "no such file", "NaN", "4 s are more than the 3 s"):
        assert word in said


def test_strict_makes_it_an_error(clips, tmp_path):
    for bad, fault in (("empty", "is empty"), ("nan", "NaN")):
        some = [clip for clip in with_bad(clips, tmp_path) if clip.id == bad or clip.id.startswith("c")]
        with pytest.raises(UserError, match=fault):
            build_store(some, FakeTokenizer(), tmp_path / bad, strict=True)


def test_a_repaired_clip_is_taken_in_when_built_again(clips, tmp_path):
    given = with_bad(clips, tmp_path)
    build_store(given, FakeTokenizer(), tmp_path / "store", max_seconds=3, shard_clips=6)
    soundfile.write(tmp_path / "empty.wav", np.zeros(4_800), 24_000)
    tokenizer = FakeTokenizer()
    store = build_store(given, tokenizer, tmp_path / "store", max_seconds=3, shard_clips=6)
    assert store[0].id == "empty" and len(store.failures) == 3
    assert sum(tokenizer.batches) == 1  # the others of its shard keep their tokens


def test_no_readable_clip_and_no_clip_at_all_are_errors(tmp_path):
    with pytest.raises(UserError, match="none of the 1 clips"):
        build_store([Clip("a", "/nowhere/a.wav", "sound", "train")], FakeTokenizer(), tmp_path / "a")
    with pytest.raises(UserError, match="no clip to tokenise"):
        build_store([], FakeTokenizer(), tmp_path / "b")


def test_more_failures_than_may_be_stop_the_build_and_lose_nothing(clips, tmp_path, capsys):
    bad = [Clip(f"bad{i}", f"/nowhere/{i}.wav", "sound", "train") for i in range(30)]
    given = [*clips[:4], *bad, *clips[4:]]
    with pytest.raises(UserError, match="10 of the first 14 clips could not be read, and 5 may be.*--max-failures"):
        build_store(given, FakeTokenizer(), tmp_path, shard_clips=14, max_failures=0.1)
    with pytest.raises(UserError, match="not finished"):
        TokenStore(tmp_path)
    tokenizer = FakeTokenizer()
    store = build_store(given, tokenizer, tmp_path, shard_clips=14, max_failures=0.6)
    assert sum(tokenizer.batches) == 20 and [clip.id for clip in store] == [clip.id for clip in clips]
    said = capsys.readouterr().err
    assert "  bad0: /nowhere/0.wav: no such file" in said and "and 10 more" in said and len(store.failures) == 30


@pytest.mark.parametrize(("bad", "share", "stops"), [(10, None, False), (11, None, True), (1, 0.0, True)])
def test_how_many_failures_are_too_many(clips, tmp_path, bad, share, stops):
    given = [*clips[:9], *(Clip(f"bad{i}", f"/nowhere/{i}.wav", "sound", "train") for i in range(bad))]
    if stops:
        with pytest.raises(UserError, match="--max-failures"):
            build_store(given, FakeTokenizer(), tmp_path, max_failures=share)
    else:
        assert len(build_store(given, FakeTokenizer(), tmp_path, max_failures=share)) == 9


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(clips, tmp_path, share):
    with pytest.raises(UserError, match="--max-failures"):
        build_store(clips, FakeTokenizer(), tmp_path / "store", max_failures=share)
    assert not (tmp_path / "store").exists()


def test_a_full_disk_costs_the_shard_in_work_alone(clips, finished, tmp_path):
    store = tmp_path / "store"
    size = (finished / "shard-00000.arrow").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    longer = [*clips[:8], *clips[16:24], *clips[8:16]]
    build_store(longer[:8], FakeTokenizer(), store, shard_clips=8)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
        with pytest.raises(UserError, match="shard-00001.arrow: File too large"):
            build_store(longer, FakeTokenizer(), store, shard_clips=16)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(store)) == ["shard-00000.arrow", "sources-00000.json", MANIFEST]
    tokenizer = FakeTokenizer()
    assert len(build_store(longer, tokenizer, store, shard_clips=16)) == 24 and sum(tokenizer.batches) == 16


class Killed(BaseException):
    """The end of a process, at one moment, in this one."""


@pytest.mark.parametrize("moment", (0, 1, 2, 3, 5, 6, 8))
def test_a_build_cut_off_between_two_files_goes_on(clips, tmp_path, monkeypatch, moment):
    """Killed before the n-th file gets its name: first a build, then one that brings the store up to date."""
    store, count = tmp_path / "store", 0
    rename = type(tmp_path).replace

    def replace(path, target):
        nonlocal count
        count += 1
        if count > moment:
            raise Killed
        return rename(path, target)

    for listed in (clips[:6], [Clip("c0", clips[0].path, "speech", "train", "new words"), *clips[1:]]):
        count = 0
        monkeypatch.setattr(type(tmp_path), "replace", replace)
        try:
            build_store(listed, FakeTokenizer(), store, shard_clips=4)
        except Killed:
            store.mkdir(exist_ok=True)
            (store / ".tmp-99-left").write_text("by a kill that lets nobody clean up")
            (store / "shard-00000.arrow.tmp").write_text("by an earlier version")
        monkeypatch.undo()
        again = build_store(listed, FakeTokenizer(), store, shard_clips=4)
        again.verify()
        assert again.clips == tuple(listed)
    once, fresh = tmp_path / "once", {}
    build_store(clips[:6], FakeTokenizer(), once, shard_clips=4)
    build_store(listed, FakeTokenizer(), once, shard_clips=4)
    for name in os.listdir(once):
        fresh[name] = (once / name).read_bytes()
    assert {name: (store / name).read_bytes() for name in os.listdir(store)} == fresh


PROGRAM = """
import json, sys
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import build_store
from tests.factories.tokenizer import FakeTokenizer
clips = [Clip(**{**v, "parts": tuple(v.get("parts", ()))}) for v in map(json.loads, open(sys.argv[1]))]
build_store(clips, FakeTokenizer(pause=0.02), sys.argv[2], shard_clips=2, batch_seconds=1)
"""


def shards_built(folder):
    if not (folder / MANIFEST).exists():
        return 0
    return len(json.loads((folder / MANIFEST).read_text())["shards"])


@pytest.mark.slow
def test_a_build_killed_at_any_moment_goes_on(clips, tmp_path):
    """kill -9 after ever more shards, somewhere within the next; the end is what an uninterrupted build makes."""
    listed = tmp_path / "clips.jsonl"
    listed.write_text("".join(clip.to_json() + "\n" for clip in clips))
    target = tmp_path / "store"
    built = []
    for goal, later in ((2, 0.0), (8, 0.04)):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(listed), str(target)], stderr=subprocess.DEVNULL)
        while shards_built(target) < goal and process.poll() is None:
            time.sleep(0.005)
        time.sleep(later)
        process.send_signal(signal.SIGKILL)
        process.wait()
        built.append(shards_built(target))
        if built[-1] < 12:
            with pytest.raises(UserError):
                TokenStore(target)
    assert built == sorted(built) and built[-1] >= 8
    tokenizer = FakeTokenizer()
    store = build_store(clips, tokenizer, target, shard_clips=2, batch_seconds=1)
    assert sum(tokenizer.batches) == len(clips) - 2 * built[-1]
    store.verify()
    fresh = build_store(clips, FakeTokenizer(), tmp_path / "fresh", shard_clips=2)
    assert store.data_hash == fresh.data_hash
    assert not [name for name in os.listdir(target) if "tmp" in name or name == ".lock"]
