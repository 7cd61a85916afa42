"""Token stores that are damaged, edited, interrupted or refused by the system: named, made anew, never lost."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import MANIFEST, TokenStore, build_store
from auditory_sentences.token_store.manifest import Damaged
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer
from tests.factories.tokens import two_streams


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "store"
    build_store(clips, FakeTokenizer(), folder, shard_clips=8)
    return folder


@pytest.fixture
def store(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "store")


def edit(store, change):
    """Change the manifest and renew its hash, as somebody would who knows how."""
    values = json.loads((store / MANIFEST).read_text())
    del values["format"], values["hash"]
    change(values)
    text = json.dumps(values, sort_keys=True)
    (store / MANIFEST).write_text(json.dumps({"format": 2, "hash": hashlib.sha256(text.encode()).hexdigest()} | values))


def rewritten(shard, column, values):
    """The shard's file with one column changed; returns what the manifest is to say of it."""
    with shard.open("rb") as file:
        table = pa.ipc.open_stream(file).read_all()
    place = table.column_names.index(column)
    made = pa.array(values(table[column].to_pylist()), table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), made)
    with shard.open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return {"bytes": shard.stat().st_size, "sha256": hashlib.sha256(shard.read_bytes()).hexdigest()}


def with_ids(store, column, values):
    """Change a column of the second shard, and everything that knows the shard's checksum."""
    said = rewritten(store / "shard-00001.arrow", column, values)
    edit(store, lambda manifest: manifest["shards"][1].update(said))


# ---- damage ------------------------------------------------------------------------------------------------------


def test_a_damaged_shard_is_named_and_made_anew(clips, finished, store, capsys):
    shard = store / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    opened = TokenStore(store)
    assert opened[0].id == "c0"  # another shard is whole
    for ask in (
        lambda: opened[8],
        lambda: opened.clips,
        opened.verify,
        lambda: opened.require_streams(two_streams(256, 256)),
    ):
        with pytest.raises(Damaged, match="shard-00001.arrow: damaged"):
            ask()
    shard.write_bytes(data[:-50])
    with pytest.raises(UserError, match="shard-00001"):
        TokenStore(store)
    tokenizer = FakeTokenizer()
    again = build_store(clips, tokenizer, store, shard_clips=8)
    again.verify()
    assert sum(tokenizer.batches) == 8 and again.data_hash == TokenStore(finished).data_hash
    assert "it is made anew" in capsys.readouterr().err


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_byte_is_never_changed_unseen(finished, tmp_path_factory, data):
    store = shutil.copytree(finished, tmp_path_factory.mktemp("flip") / "store")
    name = data.draw(st.sampled_from(sorted(os.listdir(store))))
    content = bytearray((store / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (store / name).write_bytes(content)
    try:
        opened = TokenStore(store)
        opened.verify()
    except UserError as error:
        assert name in str(error) and "delete" not in str(error)
    else:  # blanks of a JSON file, capitals of a hash that is compared as text
        whole = TokenStore(finished)
        assert opened.clips == whole.clips and all(a.tokens.equal(b.tokens) for a, b in zip(opened, whole, strict=True))


@pytest.mark.parametrize("lost", ["shard-00001.arrow", "sources-00001.json", "both"])
def test_what_is_lost_is_made_anew_in_its_place(clips, finished, store, lost):
    for name in ("shard-00001.arrow", "sources-00001.json") if lost == "both" else (lost,):
        (store / name).unlink()
    with pytest.raises(UserError, match="00001.*missing"):
        TokenStore(store).verify()
    tokenizer = FakeTokenizer()
    again = build_store(clips, tokenizer, store, shard_clips=8)
    assert sum(tokenizer.batches) == (0 if lost.startswith("sources") else 8)
    assert again.data_hash == TokenStore(finished).data_hash and again.clips == tuple(clips)


def test_a_damaged_shard_is_not_replaced_by_less(clips, store):
    shard = store / "shard-00001.arrow"
    damaged = shard.read_bytes()[:-9]
    shard.write_bytes(damaged)
    given = [*clips[:9], Clip("c9", "/nowhere/c9.wav", "music", "train"), *clips[10:]]
    with pytest.raises(UserError, match="damaged, and 1 of its clips cannot be made anew.*restore"):
        build_store(given, FakeTokenizer(), store, shard_clips=8)
    assert shard.read_bytes() == damaged


EDITS = {
    "a shard in another folder": (lambda m: m["shards"][1].update(file="../shard-00001.arrow"), "own folder"),
    "an absolute shard": (lambda m: m["shards"][1].update(file="/etc/passwd"), "own folder"),
    "a shard twice": (lambda m: m["shards"].append(m["shards"][0]), "listed twice"),
    "a negative number": (lambda m: m["shards"][0].update(clips=-1), "at least 0"),
    "text for a number": (lambda m: m["shards"][0].update(bytes="many"), "bytes"),
    "true for a number": (lambda m: m["shards"][0].update(samples=True), "samples"),
    "no checksum": (lambda m: m["shards"][0].update(sha256=""), "sha256"),
    "a key too many": (lambda m: m.update(surprise=1), "unknown key 'surprise'"),
    "a key too few": (lambda m: m.pop("fingerprint"), "fingerprint"),
    "no list": (lambda m: m.update(shards={"a": 1}), "must be a list"),
    "null for a shard": (lambda m: m["shards"].append(None), "expected keys"),
    "no codes": (lambda m: m["streams"][0].update(codes=0), "codes"),
    "no frames": (lambda m: m["streams"][1].update(rate=-1.0), "rate"),
    "no stream": (lambda m: m.update(streams=[]), "streams"),
    "one stream twice": (lambda m: m.update(streams=m["streams"][:1] * 2), "streams"),
    "a stream named as a field": (lambda m: m["streams"][0].update(name="text"), "cannot be called"),
    "two ids a frame": (lambda m: m["streams"][0].update(codebooks=3), "for each frame"),
    "other counts": (lambda m: m["shards"][1].update(clips=7), "clips that the store lists"),
    "a failure without an id": (lambda m: m["shards"][0].update(failures=[{"path": "x"}]), "failures"),
    "unfinished": (lambda m: m.update(complete=False), "not finished"),
    "no shard at all": (lambda m: m.update(shards=[]), "holds no clip"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_manifest_is_one_sentence(store, name):
    change, fault = EDITS[name]
    edit(store, change)
    with pytest.raises(UserError, match=fault) as refused:
        TokenStore(store).verify()
    assert str(store) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"format": 99}', '{"format": 1', '{"format": [1]}', "3"])
def test_a_folder_without_a_good_manifest(tmp_path, content):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
        with pytest.raises(UserError, match=MANIFEST):
            build_store([Clip("a", "a.wav", "sound", "train")], FakeTokenizer(), tmp_path)
        assert (tmp_path / MANIFEST).read_text() == content
    with pytest.raises(UserError, match=str(tmp_path)):
        TokenStore(tmp_path)


def test_shards_without_a_manifest_are_not_written_over(clips, store):
    (store / MANIFEST).unlink()
    before = (store / "shard-00000.arrow").read_bytes()
    with pytest.raises(UserError, match=f"{MANIFEST} is missing; restore"):
        build_store(clips, FakeTokenizer(), store)
    assert (store / "shard-00000.arrow").read_bytes() == before


def first_id(value):
    return lambda lists: [lists[0], [value, *lists[1][1:]], *lists[2:]]


CONTENTS = {
    "an id beyond the codes": ("descriptive", first_id(256), "'c9' holds the descriptive id 256.*has 0 to 255"),
    "a negative id": ("structural", first_id(-1), "'c9' holds the structural id -1"),
    "a missing id": ("structural", lambda lists: [lists[0], lists[1][:-1], *lists[2:]], "'c9' of .* structural ids"),
    "a null": ("structural", first_id(None), "values of the column 'structural' are missing"),
    "no samples": ("num_samples", lambda n: [n[0] + n[1], 0, *n[2:]], "'c8' of .* samples|'c9' of 0 samples"),
    "a kind that is none": ("kind", lambda kinds: ["noise", *kinds[1:]], "kind 'noise'"),
    "labels that are no JSON": ("labels", lambda labels: ["{", *labels[1:]], "labels or parts"),
    "labels that are a list": ("labels", lambda labels: ["[]", *labels[1:]], "labels or parts"),
    "another id": ("id", lambda ids: ["other", *ids[1:]], "missing|other clips|not of the shard"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_shard_that_holds_what_no_tokenizer_makes_is_named(clips, finished, store, name):
    column, values, fault = CONTENTS[name]
    with_ids(store, column, values)
    source = store / "sources-00001.json"
    said = json.loads(source.read_text())
    said["shard"] = json.loads((store / MANIFEST).read_text())["shards"][1]["sha256"]
    del said["hash"]
    said["hash"] = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    source.write_text(json.dumps(said))
    with pytest.raises(UserError, match=fault) as refused:
        TokenStore(store).verify()
    assert "00001" in str(refused.value)


@pytest.mark.parametrize("rows", [None, {}, [None], [["c8"]], [["c8", 1, "", ""]], [["c8", "x", "", "", ""]]])
def test_a_list_of_recordings_of_another_form_is_named(store, rows):
    path = store / "sources-00001.json"
    values = json.loads(path.read_text()) | {"clips": rows}
    del values["hash"]
    path.write_text(
        json.dumps(values | {"hash": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()})
    )
    with pytest.raises(Damaged, match="sources-00001.json: lists no recordings"):
        TokenStore(store).verify()


def test_ids_beyond_the_codes_are_made_anew_when_built(clips, finished, store):
    with_ids(store, *CONTENTS["an id beyond the codes"][:2])
    again = build_store(clips, FakeTokenizer(), store, shard_clips=8)
    assert again.data_hash == TokenStore(finished).data_hash


def test_codes_of_another_size_are_refused(store):
    with pytest.raises(UserError, match="the tokenizer has 0 to 15"):
        TokenStore(store).require_streams(two_streams(16, 16))
    with pytest.raises(UserError, match="the tokenizer has 0 to 15"):
        TokenStore(store, two_streams(256, 16))[0]


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(store):
    (store / "shard-00001.arrow").unlink()
    os.mkfifo(store / "shard-00001.arrow")
    with pytest.raises(UserError, match="shard-00001"):
        TokenStore(store).verify()


# ---- what the system refuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MANIFEST, "shard-00001.arrow", "sources-00001.json"])
def test_what_may_not_be_read_is_not_called_damaged(clips, store, name, monkeypatch):
    """Permissions do not bind root, hence not by chmod."""
    whole = (store / name).read_bytes()
    opened = open

    def refuse(path, *arguments, **options):
        if isinstance(path, str | os.PathLike) and os.fspath(path).endswith(name):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    for ask in (lambda: TokenStore(store).verify(), lambda: build_store(clips, FakeTokenizer(), store)):
        with pytest.raises(UserError, match=f"{name}: Permission denied; change its permissions") as refused:
            ask()
        assert not any(word in str(refused.value) for word in ("delete", "again", "damaged"))
    monkeypatch.undo()
    assert (store / name).read_bytes() == whole


@pytest.mark.parametrize("where", ["a file", "below a file", "a name that is too long"])
def test_places_where_no_store_can_be(clips, tmp_path, where):
    (tmp_path / "file").write_text("of somebody")
    folder = tmp_path / {"a file": "file", "below a file": "file/store"}.get(where, "n" * 300)
    for ask in (lambda: build_store(clips, FakeTokenizer(), folder), lambda: TokenStore(folder)):
        with pytest.raises(UserError, match=folder.name):
            ask()
    with pytest.raises(UserError, match="not a name that a folder can have"):
        TokenStore("a\0b")
    assert (tmp_path / "file").read_text() == "of somebody" and os.listdir(tmp_path) == ["file"]


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


# ---- interruption ------------------------------------------------------------------------------------------------


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
    listed.write_text("".join(clip.asdict() + "\n" for clip in clips))
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
