"""Recordings into tokens: batches change nothing, and a clip that cannot be read costs that clip."""

import numpy as np
import soundfile

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store import build_store
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
