"""Clips and their tokens: at the tokenizer's rate, from the cache, batch or no batch."""

import numpy as np
import pytest
import torch

from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.cache import Cache
from evaluation.metrics.spectra import log_mel_decibels
from evaluation.token_measures.coded import CodedClips
from tests.evaluation.token_measures.planted import CODES, PlantedTokenizer, coded, plant
from tests.factories.streams_tokenizer import StreamsTokenizer


def test_tokens_are_those_planted_and_vectors_theirs(tmp_path):
    ids = [[1, 2, 3], [4] * 7, [5]]
    made = coded(tmp_path, [plant(tmp_path, f"c{i}", one) for i, one in enumerate(ids)])
    assert [clip["codes"][0].tolist() for clip in made.tokens(made.test)] == ids
    vectors = made.vectors("codes", made.test[::-1])
    assert [one.argmax(1).tolist() for one in vectors] == ids[::-1] and vectors[0].shape == (1, CODES)


def test_what_was_encoded_once_is_read_from_the_cache(tmp_path, monkeypatch):
    clips = [plant(tmp_path, f"c{i}", [i, i]) for i in range(3)]
    first = coded(tmp_path, clips).tokens(clips)
    monkeypatch.setattr(PlantedTokenizer, "encode", lambda *args: pytest.fail("encoded again"))
    again = coded(tmp_path, clips).tokens(clips)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))


def test_recordings_are_heard_at_the_tokenizers_rate(tmp_path):
    clip = plant(tmp_path, "c", 50 * [4])
    tokenizer = StreamsTokenizer((StreamSpec("a", 10.0, 2, 8), StreamSpec("b", 50.0, 1, 8)), sample_rate=16_000)
    made = CodedClips(tokenizer, [clip], [clip], Cache(tmp_path / "cache"))
    assert len(made.waveform(clip)) == 16_000
    (tokens,) = made.tokens([clip])
    assert tokens.num_samples == 16_000 and tokens["a"].shape == (2, 11) and tokens["b"].shape == (1, 51)
    expected = tokenizer.dequantise("a", tokens["a"].T[None])[0]
    assert torch.equal(made.vectors("a", [clip])[0], expected)


def test_mel_frames_are_means_over_a_frame_of_the_stream(tmp_path):
    clip = plant(tmp_path, "c", np.random.default_rng(0).integers(0, CODES, 40))
    made = coded(tmp_path, [clip])
    mel = log_mel_decibels(made.waveform(clip).numpy()).T
    assert np.allclose(made.mel_frames(clip, 12.5)[2], mel[16:24].mean(0), atol=1e-3)
    assert np.allclose(made.mel_frames(clip, 50.0)[7], mel[14:16].mean(0), atol=1e-3)
    assert np.array_equal(made.mel_frames(clip, 200.0)[::2], mel)
    assert len(made.mel_frames(clip, 100.0)) == len(mel)


def test_samples_are_of_their_split_limited_and_the_same_for_a_seed(tmp_path):
    clips = [plant(tmp_path, f"c{i}", [1], split=("train", "dev", "test")[i % 3]) for i in range(30)]
    made = coded(tmp_path, clips, training=8)
    train = made.sample("train")
    assert len(train) == 8 and {clip.split for clip in train} == {"train"} and len(made.sample("dev")) == 2
    assert train == coded(tmp_path, clips[::-1], training=8).sample("train")
    assert train != coded(tmp_path, clips, training=8, seed=1).sample("train")


def test_an_empty_recording_and_unknown_codes_are_said(tmp_path):
    with pytest.raises(UserError, match=r"e\.wav"):
        coded(tmp_path, []).tokens([plant(tmp_path, "e", [])])
    tokenizer = StreamsTokenizer((StreamSpec("a", 10.0, 2, 8),))
    made = CodedClips(tokenizer, [], [], Cache(tmp_path / "cache"))
    tokenizer._specs = (StreamSpec("a", 10.0, 2, None),)
    with pytest.raises(UserError, match="how many codes its stream 'a' has"):
        made.codes("a")
