"""The token store: complete, in order, checked, and never lost, whatever kills its making."""

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch

from auditory_sentences.clip import Clip
from auditory_sentences.token_store import MANIFEST, StoredClip, TokenStore, build_store
from codec.audio import load_audio
from codec.errors import UserError
from tests.auditory_sentences.fake_tokenizer import FakeTokenizer


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """24 clips of 0.01 to 2 s at three rates."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    made = []
    for i in range(24):
        path = folder / f"{i}.wav"
        rate = (8_000, 24_000, 44_100)[i % 3]
        seconds = 0.01 if i == 5 else rng.uniform(0.1, 2)
        soundfile.write(path, rng.uniform(-0.5, 0.5, (int(rate * seconds), 1 + i % 2)), rate)
        made.append(
            Clip(
                id=f"c{i}", path=str(path), kind=("speech", "music")[i % 2], split=("train", "test")[i % 4 == 0],
                text=f"wörds {i // 2}", caption="a caption", speaker=f"s{i % 3}",
                labels={"gender": ("male", "female")[i % 2], "pitch": "low"}, group="long" if i < 3 else "", position=i,
                parts=("c0", "c1") if i == 2 else (), licence="CC0-1.0", source="a test",
            )
        )  # fmt: skip
    return made


def test_every_clip_comes_back_as_it_went_in(clips, tmp_path):
    tokenizer = FakeTokenizer()
    store = build_store(clips, tokenizer, tmp_path, shard_clips=10, batch_seconds=4)
    assert len(store) == len(clips) and not store.failures and store.fingerprint == tokenizer.fingerprint
    for i in (random.Random(0).sample(range(len(clips)), 12)) + [5, -1]:
        stored, clip = store[i], clips[i]
        assert isinstance(stored, StoredClip)
        assert Clip(**{name: getattr(stored, name) for name in Clip.__dataclass_fields__}) == clip
        alone = tokenizer.encode(load_audio(clip.path)[None])[0]
        assert stored.tokens.equal(alone)
    assert store.clips == tuple(clips)
    assert store.num_samples == tuple(len(load_audio(clip.path)) for clip in clips)
    assert store.seconds == pytest.approx(sum(store.num_samples) / 24_000)
    with pytest.raises(IndexError):
        store[len(clips)]


def test_shards_and_batches_change_nothing(clips, tmp_path):
    stores = [
        build_store(clips, FakeTokenizer(), tmp_path / str(k), shard_clips=shard, batch_seconds=batch)
        for k, (shard, batch) in enumerate([(100, 100), (7, 3), (1, 0.1)])
    ]
    for a, b, c in zip(*stores, strict=True):
        assert a.id == b.id == c.id and a.tokens.equal(b.tokens) and a.tokens.equal(c.tokens)


def test_batches_hold_similar_lengths_within_the_limit(clips, tmp_path):
    tokenizer = FakeTokenizer()
    store = build_store(clips, tokenizer, tmp_path, batch_seconds=5)
    lengths, at = sorted(store.num_samples, reverse=True), 0
    for size in tokenizer.batches:
        assert lengths[at] * size <= 5 * 24_000
        at += size
    assert at == len(clips) and len(tokenizer.batches) < 12


def test_the_index(clips, tmp_path):
    store = build_store(clips, FakeTokenizer(), tmp_path)
    assert store.select(split="test", kind="speech") == [i for i in range(0, 24, 4)]
    assert store.select(speaker="s1", gender="male") == [i for i in range(24) if i % 3 == 1 and i % 2 == 0]
    assert store.select(group="long") == [0, 1, 2] and store.select(text="wörds 3") == [6, 7]
    assert store.index_of("c7") == 7
    with pytest.raises(UserError, match="no clip 'nope'"):
        store.index_of("nope")


def test_a_store_goes_to_other_processes(clips, tmp_path):
    store = build_store(clips, FakeTokenizer(), tmp_path)
    assert len(pickle.dumps(store)) < 1000
    assert pickle.loads(pickle.dumps(store))[3].tokens.equal(store[3].tokens)


def test_datasets_opens_a_shard(clips, tmp_path):
    from datasets import Dataset

    build_store(clips, FakeTokenizer(), tmp_path)
    data = Dataset.from_file(str(tmp_path / "shard-00000.arrow"))
    assert data["id"][:3] == ["c0", "c1", "c2"] and data[0]["licence"] == "CC0-1.0"


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


def test_other_clips_are_refused(clips, tmp_path):
    build_store(clips, FakeTokenizer(), tmp_path)
    with pytest.raises(UserError, match="24 other clips"):
        build_store(clips[:-1], FakeTokenizer(), tmp_path)


# ---- clips that cannot be read -----------------------------------------------------------------------------------


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
    assert sum(tokenizer.batches) == 6  # its shard alone


def test_no_readable_clip_and_no_clip_at_all_are_errors(tmp_path):
    with pytest.raises(UserError, match="none of the 1 clips"):
        build_store([Clip("a", "/nowhere/a.wav", "sound", "train")], FakeTokenizer(), tmp_path / "a")
    with pytest.raises(UserError, match="no clip to tokenise"):
        build_store([], FakeTokenizer(), tmp_path / "b")


# ---- damage and interruption -------------------------------------------------------------------------------------


def test_damage_is_named_and_repaired(clips, tmp_path):
    store = build_store(clips, FakeTokenizer(), tmp_path, shard_clips=8)
    shard = tmp_path / "shard-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 255
    shard.write_bytes(data)
    with pytest.raises(UserError, match="shard-00001.*damaged"):
        TokenStore(tmp_path).verify()
    shard.write_bytes(data[:-50])
    with pytest.raises(UserError, match="shard-00001"):
        TokenStore(tmp_path)
    again = build_store(clips, FakeTokenizer(), tmp_path, shard_clips=8)
    again.verify()
    assert again.data_hash == store.data_hash


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"format": 99}', '{"format": 1'])
def test_a_folder_without_a_good_manifest(tmp_path, content):
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=str(tmp_path)):
        TokenStore(tmp_path)


PROGRAM = """
import json, sys
from auditory_sentences.clip import Clip
from auditory_sentences.token_store import build_store
from tests.auditory_sentences.fake_tokenizer import FakeTokenizer
clips = [Clip(**{**v, "parts": tuple(v.get("parts", ()))}) for v in map(json.loads, open(sys.argv[1]))]
build_store(clips, FakeTokenizer(pause=0.02), sys.argv[2], shard_clips=2, batch_seconds=1)
"""


def shards_built(folder):
    if not (folder / MANIFEST).exists():
        return 0
    return sum(shard is not None for shard in json.loads((folder / MANIFEST).read_text())["shards"])


def test_a_build_killed_at_any_moment_goes_on(clips, tmp_path):
    """kill -9 after ever more shards, somewhere within the next; the end is what an uninterrupted build makes."""
    listed = tmp_path / "clips.jsonl"
    listed.write_text("".join(clip.to_json() + "\n" for clip in clips))
    target = tmp_path / "store"
    built = []
    for goal, later in ((1, 0.0), (4, 0.02), (8, 0.04)):
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
    assert not [name for name in os.listdir(target) if name.endswith(".tmp")]


def test_a_kill_between_shard_and_manifest_loses_that_shard_only(clips, tmp_path):
    """The moment that timing hardly hits: the shard is renamed, the manifest does not know it yet."""
    build_store(clips, FakeTokenizer(), tmp_path, shard_clips=8)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["shards"][2] = None
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "shard-00001.arrow.tmp").write_bytes(b"half a shard")
    with pytest.raises(UserError, match="1 of 3 shards"):
        TokenStore(tmp_path)
    tokenizer = FakeTokenizer()
    store = build_store(clips, tokenizer, tmp_path, shard_clips=8)
    assert sum(tokenizer.batches) == 8
    store.verify()
    assert torch.equal(
        store[20].tokens.structural, FakeTokenizer().encode(load_audio(clips[20].path)[None])[0].structural
    )
