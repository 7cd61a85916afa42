"""What every tokenizer does, asked of each that is registered, and of one of another shape.

A tokenizer that joins `codec.tokenizer.TOKENIZERS` joins MADE here, with a small one of its kind, and the names of its
streams join `codec.streams.STREAM_NAMES`. tests/cli/test_any_codec.py then trains the language model on it, too.
"""

from __future__ import annotations

import pytest
import torch

from codec import tokenizer as registry
from codec.io.errors import UserError
from codec.streams import STREAM_NAMES
from codec.tokenizer import load_tokenizer
from codec.tokens import AudioTokens
from tests.factories.codec import noise, small_codec
from tests.factories.one_stream.almtokenizer import small_almtokenizer
from tests.factories.one_stream.xcodec import small_xcodec
from tests.factories.streams_tokenizer import StreamsTokenizer

MADE = {
    "reasoning_codec": small_codec,
    "streams": StreamsTokenizer,
    "xcodec": small_xcodec,
    "almtokenizer": small_almtokenizer,
}
LENGTHS = [1, 4_799, 4_800, 9_601, 30_000]  # samples
DECODE = {"steps": 2}


@pytest.fixture(autouse=True)
def known(monkeypatch):
    place = ("tests.factories.streams_tokenizer", "StreamsTokenizer")
    monkeypatch.setitem(registry.TOKENIZERS, "streams", place)


@pytest.fixture(scope="module", params=sorted(MADE))
def tokenizer(request):
    return MADE[request.param]()


@pytest.fixture(scope="module")
def clips(tokenizer):
    return [noise(n, seed=n) for n in LENGTHS]


@pytest.fixture(scope="module")
def together(tokenizer, clips):
    return tokenizer.encode(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(LENGTHS))


def test_every_registered_tokenizer_is_asked():
    assert set(registry.TOKENIZERS) == set(MADE)


def test_the_names_of_its_streams_are_known_without_it(tokenizer):
    assert set(STREAM_NAMES) == set(registry.TOKENIZERS) - {"streams"}
    if tokenizer.tokenizer_type != "streams":
        assert STREAM_NAMES[tokenizer.tokenizer_type] == tuple(spec.name for spec in tokenizer.streams)


def test_streams_are_stated(tokenizer):
    names = [spec.name for spec in tokenizer.streams]
    assert names and len(set(names)) == len(names) and not {"audio", "audio_prompt", "text", "prompt"} & set(names)
    for spec in tokenizer.streams:
        assert spec.rate > 0 and spec.codebooks >= 1 and spec.codes >= 2
    assert tokenizer.sample_rate > 0 and tokenizer.device == torch.device("cpu")


def test_tokens_have_the_stated_streams_and_lengths(tokenizer, together):
    for tokens, n in zip(together, LENGTHS, strict=True):
        assert tokens.num_samples == n and tokens.fingerprint == tokenizer.fingerprint
        tokenizer.require_own(tokens)
        for spec in tokenizer.streams:
            assert tokens[spec.name].shape == (spec.codebooks, tokenizer.num_frames(spec.name, n))
            frames = tokens[spec.name].shape[1]
            assert tokenizer.num_frames(spec.name, tokenizer.least_samples(spec.name, frames)) == frames


def test_a_clip_in_a_batch_is_the_clip_alone_and_again(tokenizer, clips, together):
    for clip, tokens in zip(clips, together, strict=True):
        assert tokenizer.encode(clip[None])[0].equal(tokens)


def test_blocks_are_the_whole(tokenizer, clips, together):
    told = []
    made = tokenizer.encode_blocks(iter(clips[-1].split(7_000)), LENGTHS[-1], told.append)
    assert made.equal(together[-1]) and sum(told) == LENGTHS[-1]


def test_progress_adds_up_to_the_samples(tokenizer, clips):
    told = []
    tokenizer.encode(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(LENGTHS), told.append)
    assert sum(told) == sum(LENGTHS)


def test_decoded_sound_is_as_long_as_the_clip_and_does_not_depend_on_the_batch(tokenizer, together):
    waves = tokenizer.decode(together, seed=[3] * len(together), **DECODE)
    for wave, tokens in zip(waves, together, strict=True):
        assert wave.shape == (tokens.num_samples,) and wave.dtype == torch.float32 and wave.isfinite().all()
        assert torch.equal(tokenizer.decode([tokens], seed=3, **DECODE)[0], wave)


def test_a_stream_is_the_offline_decode(tokenizer, together):
    tokens, last = together[-1], tokenizer.streams[-1].name
    try:
        stream = tokenizer.stream(seed=3, **DECODE)
    except UserError as refused:
        assert "whole clips only" in str(refused)
        return
    pieces = [stream.feed(part) for part in tokens[last].split(3, dim=1)]
    heard = torch.cat([*pieces, stream.finish(tokens.num_samples)])
    torch.testing.assert_close(heard, tokenizer.decode([tokens], seed=3, **DECODE)[0], atol=1e-5, rtol=0)


def test_frames_dequantise_to_vectors(tokenizer, together):
    for spec in tokenizer.streams:
        ids = together[-1][spec.name].T[None]
        vectors = tokenizer.dequantise(spec.name, ids)
        assert vectors.shape[:2] == ids.shape[:2] and vectors.isfinite().all() and not vectors.requires_grad
        torch.testing.assert_close(tokenizer.dequantise(spec.name, ids[:, :1]), vectors[:, :1])


def test_saved_and_loaded_it_is_the_same(tokenizer, together, clips, tmp_path):
    tokenizer.save_pretrained(tmp_path / "codec")
    again = load_tokenizer(tmp_path / "codec")
    assert type(again) is type(tokenizer) and again.fingerprint == tokenizer.fingerprint
    assert again.streams == tokenizer.streams and again.sample_rate == tokenizer.sample_rate
    assert again.encode(clips[-1][None])[0].equal(together[-1])
    together[-1].save(tmp_path / "clip.safetensors")
    assert AudioTokens.load(tmp_path / "clip.safetensors").equal(together[-1])


def test_other_weights_have_another_fingerprint_and_other_tokens_are_refused(tokenizer, together):
    other = MADE[tokenizer.tokenizer_type](seed=1)
    assert other.fingerprint != tokenizer.fingerprint
    with pytest.raises(UserError, match="decode them with the tokenizer that made them"):
        other.decode(together[:1], **DECODE)


@pytest.mark.parametrize("fault", ["an id beyond the codes", "an id below 0", "a frame too many", "a stream missing"])
def test_tokens_that_do_not_fit_are_refused(tokenizer, together, fault):
    spec, tokens = tokenizer.streams[-1], together[-1]
    streams = {name: ids.clone() for name, ids in tokens.streams.items()}
    if fault == "a stream missing":
        streams = {"other": streams[spec.name]}
    elif fault == "a frame too many":
        streams[spec.name] = torch.cat([streams[spec.name], streams[spec.name][:, :1]], dim=1)
    else:
        streams[spec.name][0, 0] = spec.codes if "beyond" in fault else -1
    with pytest.raises(UserError, match="here: "):
        tokenizer.require_own(AudioTokens(streams, tokens.num_samples, tokens.fingerprint), "here")


NO_SOUND = {
    "empty": (torch.zeros(1, 0), "clip 0 of the batch is empty"),
    "NaN": (torch.full((1, 100), torch.nan), "clip 0 of the batch holds NaN"),
    "infinity": (torch.full((1, 9), torch.inf), "holds NaN or infinite"),
    "no batch": (torch.zeros(100), "must be a float tensor"),
    "8 channels": (torch.zeros(1, 8, 100), "must be a float tensor"),
    "whole numbers": (torch.zeros(1, 100, dtype=torch.int16), "int16"),
}


@pytest.mark.parametrize("fault", NO_SOUND)
def test_what_is_no_sound_is_refused(tokenizer, fault):
    wave, message = NO_SOUND[fault]
    with pytest.raises(UserError, match=message):
        tokenizer.encode(wave)


def test_blocks_that_are_not_what_was_announced_are_refused(tokenizer):
    with pytest.raises(UserError, match="ended after 900 samples"):
        tokenizer.encode_blocks(iter([torch.zeros(900)]), 1_000)
    with pytest.raises(ValueError, match="more than the 500"):
        tokenizer.encode_blocks(iter([torch.zeros(500), torch.zeros(1)]), 500)
    with pytest.raises(UserError, match="NaN"):
        tokenizer.encode_blocks(iter([torch.full((500,), torch.nan)]), 500)
    with pytest.raises(UserError):
        tokenizer.encode_blocks(iter([]), 0)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4, 1e-30])
def test_silence_and_loudness_are_sound(tokenizer, value):
    tokens = tokenizer.encode(torch.full((1, 5_000), value))[0]
    tokenizer.require_own(tokens)
    assert tokenizer.decode([tokens], **DECODE)[0].isfinite().all()


def test_frames_of_a_language_model_become_tokens(tokenizer):
    frames = {s.name: torch.zeros(s.codebooks, 3 + 2 * i, dtype=torch.int64) for i, s in enumerate(tokenizer.streams)}
    tokens = tokenizer.from_frames(frames)
    tokenizer.require_own(tokens)
    last = tokenizer.streams[-1].name
    assert tokens[last].shape == frames[last].shape
    with pytest.raises(ValueError, match="at least one frame"):
        tokenizer.from_frames(frames | {last: frames[last][:, :0]})
