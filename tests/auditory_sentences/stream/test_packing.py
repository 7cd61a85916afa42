"""Packing loses nothing, invents nothing, and every pack is a pure function of its cursor."""

import hashlib
import itertools
import logging
import os
import pickle
import subprocess
import sys
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from auditory_sentences.stream.mixing import SampledSentence, SentenceStream
from auditory_sentences.stream.packing import WINDOW, Packing, best_fit
from codec.io.errors import UserError
from tests import ROOT
from tests.auditory_sentences.stream.test_mixing import EVERYTHING
from tests.factories.store import random_tokens, tiny_layout, tiny_store, tiny_tokenizer

CONTEXT = 512


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def layout(tokenizer):
    return tiny_layout(tokenizer)


@pytest.fixture(scope="module")
def stream():
    return SentenceStream(tiny_store(), EVERYTHING, seed=0, max_rows=CONTEXT)


@pytest.fixture
def packing(stream, layout, tokenizer):
    return Packing(stream, layout, tokenizer, CONTEXT)


def take(batches, count):
    return list(itertools.islice(batches, count))


def key(ids, mask, loss):
    return ids.numpy().tobytes(), mask.numpy().tobytes(), loss.numpy().tobytes()


def sentences_in(batch):
    """The packed sentences as (ids, mask, loss), told apart by where positions restart; padding left out."""
    for ids, mask, loss, positions in zip(batch.ids, batch.mask, batch.loss, batch.position_ids, strict=True):
        starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(positions)]
        for start, end in itertools.pairwise(starts):
            assert torch.equal(positions[start:end], torch.arange(end - start))
            if mask[start:end].any():
                assert mask[start:end].any(1).all()
                yield key(ids[start:end], mask[start:end], loss[start:end])


def test_every_row_and_every_loss_weight_is_kept(packing, stream, layout, tokenizer):
    """The packs of a window hold exactly the rows of its sentences, as `to_rows` makes them."""
    packed, windows = Counter(), 3
    for batch in packing.read():
        if batch.cursor > windows * WINDOW:  # of a pack in the window after
            break
        packed.update(sentences_in(batch))
    expected = Counter()
    for i in range(windows * WINDOW):
        sentence, hide = stream[divmod(i, len(stream))]
        rows = to_rows(sentence, layout, tokenizer, drop_conditions=hide)
        expected[key(rows.ids, rows.mask, rows.loss)] += 1
    assert packed == expected


def test_padding_is_padding(packing, layout):
    seen = 0
    for batch in take(packing.read(batch_size=4), 20):
        rest = ~batch.mask.any(-1)  # (B, T)
        seen += int(rest.sum())
        assert not batch.loss[rest].any()
        assert (batch.ids[rest][:, -1] == layout.text_pad).all()
        assert (batch.ids[rest][:, 0] == layout.pad(1)).all()
        for row, positions in zip(rest, batch.position_ids, strict=True):
            first = int((~row).sum())
            assert not row[:first].any()  # the rest is at the end
            assert torch.equal(positions[first:], torch.arange(CONTEXT - first))
    assert seen > 0


def test_shapes_and_types(packing):
    batch = next(packing.read(batch_size=3))
    assert batch.ids.shape == batch.mask.shape == (3, CONTEXT, 9)
    assert batch.loss.shape == batch.position_ids.shape == (3, CONTEXT)
    assert len(batch.names) == len(list(sentences_in(batch)))
    assert [t.dtype for t in batch[:4]] == [torch.int64, torch.bool, torch.float32, torch.int64]


@pytest.mark.parametrize("start", [0, 1, 7, 40])
def test_resuming_equals_going_on(packing, stream, layout, tokenizer, start):
    """One integer: what comes after it does not depend on how it was reached, windows and epochs crossed."""
    straight = take(packing.read(batch_size=4), start + 60)
    assert straight[-1].cursor > len(stream) > WINDOW
    cursor = straight[start - 1].cursor if start else 0
    resumed = take(Packing(stream, layout, tokenizer, CONTEXT).read(cursor, batch_size=4), 60)
    for one, other in zip(straight[start:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
        assert (one.cursor, one.names) == (other.cursor, other.names)


@pytest.mark.parametrize(("readers", "batch_size"), [(1, 4), (2, 2), (4, 1), (3, 2), (2, 6)])
def test_any_number_of_readers_read_the_same(packing, stream, layout, tokenizer, readers, batch_size):
    alone = [batch for batch in take(packing.read(), 24)]
    steps = 24 // (readers * batch_size)
    parts = [
        take(Packing(stream, layout, tokenizer, CONTEXT).read(0, batch_size, reader, readers), steps)
        for reader in range(readers)
    ]
    place = 0
    for step in range(steps):
        assert len({part[step].cursor for part in parts}) == 1
        for part in parts:
            for ids in part[step].ids:
                assert torch.equal(ids, alone[place].ids[0])
                place += 1
        assert part[step].cursor == alone[place - 1].cursor


def test_a_copy_in_another_process_reads_the_same(packing, tmp_path):
    """Workers get the packing pickled; another hash seed and a warm cache change nothing."""
    file = tmp_path / "packing.pickle"
    expected = next(packing.read(9))
    file.write_bytes(pickle.dumps(packing))
    code = (
        "import pickle, sys, hashlib\n"
        "packing = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "print(hashlib.sha256(next(packing.read(9)).ids.numpy().tobytes()).hexdigest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        env=os.environ | {"PYTHONHASHSEED": "5"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == hashlib.sha256(expected.ids.numpy().tobytes()).hexdigest()


def test_little_is_wasted(packing):
    batches = take(packing.read(batch_size=8), 20)
    filled = torch.cat([batch.mask.any(-1) for batch in batches]).float().mean()
    assert filled > 0.93


class Listed:
    """A stream of given sentences, over and over."""

    def __init__(self, sentences):
        self.sentences = sentences

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, at):
        return SampledSentence(self.sentences[at[1]], False)


def audio(seconds, name):
    return AuditorySentence((Segment("audio", random_tokens(round(24_000 * seconds)), is_target=True),), name)


def test_sentences_that_are_too_long_are_skipped_and_counted(layout, tokenizer, caplog):
    stream = Listed([audio(1, "asr:short"), audio(9, "tts:long")])
    packing = Packing(stream, layout, tokenizer, 64)
    with caplog.at_level(logging.WARNING):
        batch = next(packing.read())
    assert packing.skipped == {"tts": WINDOW // 2}
    assert "skipped tts:long: its 163 rows do not fit into a context of 64" in caplog.text
    assert len(list(sentences_in(batch))) == 2


def test_an_epoch_without_a_sentence_that_fits_is_an_error(layout, tokenizer):
    packing = Packing(Listed([audio(9, "tts:long")] * 1000), layout, tokenizer, 64)
    with pytest.raises(UserError, match="fits into a context of 64 rows .*'tts': "):
        next(packing.read())


def test_hidden_conditions_are_hidden(layout, tokenizer):
    words, sound = Segment("transcription", "one two"), Segment("audio", random_tokens(24_000), is_target=True)
    sentence = AuditorySentence((words, sound), "tts:x")

    class Hidden(Listed):
        def __getitem__(self, at):
            return SampledSentence(sentence, True)

    (packed, *_) = sentences_in(next(Packing(Hidden([sentence]), layout, tokenizer, 100).read()))
    rows = to_rows(sentence, layout, tokenizer, drop_conditions=True)
    assert packed == key(rows.ids, rows.mask, rows.loss)
    assert packed != key(*(getattr(to_rows(sentence, layout, tokenizer), name) for name in ("ids", "mask", "loss")))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 100), max_size=80))
def test_best_fit_is_a_packing_and_a_good_one(lengths):
    bins = best_fit(dict(enumerate(lengths)), 100)
    assert sorted(itertools.chain(*bins)) == list(range(len(lengths)))
    sizes = sorted(sum(lengths[i] for i in members) for members in bins)
    assert all(0 < size <= 100 for size in sizes)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > 100  # no two bins would have fitted into one


def test_packs_are_mixed(layout, tokenizer):
    """Sentences of like length, which are of one task, do not all end up side by side."""
    stream = Listed([audio(1 + i % 2, f"{'ab'[i % 2]}:{i}") for i in range(400)])
    names = [batch.names for batch in take(Packing(stream, layout, tokenizer, CONTEXT).read(), 8)]
    assert all({"a", "b"} == {name[0] for name in pack} for pack in names)


def test_the_text_cache_is_bounded(layout, tokenizer, monkeypatch):
    monkeypatch.setattr("auditory_sentences.stream.packing._CACHED_TEXTS", 10)
    texts = [AuditorySentence((Segment("text", f"line {i}", is_target=True),), f"text_only:{i}") for i in range(50)]
    packing = Packing(Listed(texts), layout, tokenizer, 64)
    batch = next(packing.read(batch_size=3))
    assert len(packing._texts) <= 10
    known = {key(r.ids, r.mask, r.loss) for r in (to_rows(t, layout, tokenizer) for t in texts)}
    assert set(sentences_in(batch)) <= known
