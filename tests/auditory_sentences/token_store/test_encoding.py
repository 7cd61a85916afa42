"""Recordings into tokens: batches change nothing, and a clip that cannot be read costs that clip."""

import threading

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import build, build_store
from auditory_sentences.token_store.encoding import Pace, encode
from codec.io.errors import UserError
from tests.factories.tokenizer import FakeTokenizer


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


def test_a_clip_that_the_tokenizer_refuses_costs_that_clip(clips, tmp_path):
    class Choosy(FakeTokenizer):
        def encode(self, waveforms, lengths=None):
            if (lengths == 4_321).any():
                raise UserError("a length that is not liked")
            return super().encode(waveforms, lengths)

    soundfile.write(tmp_path / "odd.wav", np.zeros(4_321), 24_000)
    given = [*clips[:3], Clip("odd", str(tmp_path / "odd.wav"), "sound", "train"), *clips[3:6]]
    store = build_store(given, Choosy(), tmp_path / "store", pace=(pace := Pace()))
    assert pace.sound == pytest.approx(sum(store.num_samples) / 24_000)  # each clip once, though tried twice
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


class Watched(FakeTokenizer):
    """Says when it has encoded its n-th batch."""

    def __init__(self, goal: int) -> None:
        super().__init__()
        self.goal, self.reached = goal, threading.Event()

    def encode(self, waveforms, lengths=None):
        made = super().encode(waveforms, lengths)
        if len(self.batches) == self.goal:
            self.reached.set()
        return made


def test_the_next_shard_is_encoded_while_one_is_written(clips, tmp_path, monkeypatch):
    tokenizer, write, waited = Watched(3), build.write_shard, []

    def write_shard(path, *rest):
        if not waited:
            waited.append(tokenizer.reached.wait(30))
        return write(path, *rest)

    monkeypatch.setattr(build, "write_shard", write_shard)
    store = build_store(clips, tokenizer, tmp_path, shard_clips=len(clips) // 3, batch_seconds=1000)
    assert waited == [True] and len(store) == len(clips)


def test_parts_come_in_their_order_each_at_least_once_and_what_is_not_wanted_is_not_encoded(clips, tmp_path):
    gone = Clip("gone", str(tmp_path / "gone.wav"), "sound", "train")
    parts = [clips[:2], [], [gone], clips[2:5], []]
    found = list(encode(parts, FakeTokenizer(), 1000, 300))
    assert [batch.part for batch in found] == sorted(batch.part for batch in found)
    assert {batch.part for batch in found} == set(range(5))
    assert [sorted(batch.encoded) for batch in found if batch.encoded] == [[0, 1], [0, 1, 2]]
    assert "no such file" in next(batch.unread[0] for batch in found if batch.unread)
    tokenizer = FakeTokenizer()
    batches = encode([[clip] for clip in clips], tokenizer, 1000, 300)
    next(batches)
    batches.close()
    assert len(tokenizer.batches) < len(clips) - 4


def test_an_error_that_is_no_ones_fault_ends_the_build(clips, tmp_path):
    class Broken(FakeTokenizer):
        def encode(self, waveforms, lengths=None):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        build_store(clips, Broken(), tmp_path)


def test_how_fast_it_went_is_said(clips, tmp_path, capsys):
    pace = Pace()
    store = build_store(clips, FakeTokenizer(pause=0.01), tmp_path, pace=pace)
    assert pace.sound == pytest.approx(sum(store.num_samples) / 24_000)
    assert 0 < pace.share <= 1 and pace.rate == pytest.approx(pace.sound / pace.taken)
    assert f"{pace.rate:.0f} h an hour" in capsys.readouterr().err
    build_store(clips, FakeTokenizer(), tmp_path)
    assert "h an hour" not in capsys.readouterr().err
