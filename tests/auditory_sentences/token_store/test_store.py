"""The token store: complete, in order, checked, and never lost, whatever kills its making."""

import pickle
import random

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import StoredClip, TokenStore, build_store
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.io.locks import locked
from tests.factories.tokenizer import FakeTokenizer


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


def test_one_builder_at_a_time(clips, tmp_path):
    with locked(tmp_path, "another build"), pytest.raises(UserError, match="in use by another build, process"):
        build_store(clips, FakeTokenizer(), tmp_path)


def test_ids_that_stand_twice_are_refused(clips, tmp_path):
    with pytest.raises(UserError, match="two clips are called 'c3'"):
        build_store([*clips, clips[3]], FakeTokenizer(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


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


def test_a_clip_that_the_tokenizer_refuses_costs_that_clip(clips, tmp_path):
    class Choosy(FakeTokenizer):
        def encode(self, waveforms, lengths=None):
            if (lengths == 4_321).any():
                raise UserError("a length that is not liked")
            return super().encode(waveforms, lengths)

    soundfile.write(tmp_path / "odd.wav", np.zeros(4_321), 24_000)
    given = [*clips[:3], Clip("odd", str(tmp_path / "odd.wav"), "sound", "train"), *clips[3:6]]
    store = build_store(given, Choosy(), tmp_path / "store")
    assert len(store) == 6 and "odd.wav: a length that is not liked" in store.failures[0].reason


def test_what_is_no_text_and_control_characters_are_listed_harmlessly(clips, tmp_path, capsys):
    odd = [
        Clip("half\udce9", clips[0].path, "sound", "train"),
        Clip("escape\x1b[2J", str(tmp_path / "x\x1b[31m.wav"), "sound", "train"),
    ]
    store = build_store([*odd, *clips[:3]], FakeTokenizer(), tmp_path / "store")
    said = capsys.readouterr().err
    assert len(store) == 3 and "half\\xe9" in said and "not text in UTF-8" in said
    assert "escape\\x1b[2J" in said and "\x1b[" not in said.replace("\x1b[", "", 0).split("could not be read")[1]


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused(clips, tmp_path, share):
    with pytest.raises(UserError, match="--max-failures"):
        build_store(clips, FakeTokenizer(), tmp_path / "store", max_failures=share)
    assert not (tmp_path / "store").exists()
