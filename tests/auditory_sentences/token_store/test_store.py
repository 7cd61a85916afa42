"""The token store: complete, in order, by its index, in other processes."""

import pickle
import random

import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import StoredClip, build_store
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
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
