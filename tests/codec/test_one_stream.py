"""Tokenizers of one stream: lengths, batches, long sound in windows, streams, bad input; of each kind and front end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from auditory_sentences.lengths import Units
from codec.io.errors import UserError
from codec.layers.windows import context_windows
from codec.one_stream import OneStreamTokenizer
from tests.factories.codec import noise
from tests.factories.one_stream.almtokenizer import MEAN_POOLED, ON_SAMPLES, SMALL, small_almtokenizer
from tests.factories.one_stream.xcodec import SMALL as SMALL_XCODEC
from tests.factories.one_stream.xcodec import WITH_EXPERT, WITHOUT_TEACHER, small_xcodec

KINDS = {
    "X-Codec, speech model": (small_xcodec, SMALL_XCODEC),
    "X-Codec, expert": (small_xcodec, WITH_EXPERT),
    "X-Codec, no teacher": (small_xcodec, WITHOUT_TEACHER),
    "ALMTokenizer": (small_almtokenizer, SMALL),
    "ALMTokenizer, on samples": (small_almtokenizer, ON_SAMPLES),
    "ALMTokenizer, mean pooled": (small_almtokenizer, MEAN_POOLED),
}


@pytest.fixture(scope="module", params=KINDS)
def codec(request):
    make, config = KINDS[request.param]
    return make(config)


def ids_of(codec, wave):
    return codec.encode(wave[None])[0][codec.streams[0].name]


@pytest.mark.parametrize("frames, more", [(0, 1), (1, -1), (1, 0), (1, 1), (20, 0), (20, 100)])
def test_a_clip_has_a_frame_for_each_that_is_started(codec, frames, more):
    hop, name = codec.samples_per_frame, codec.streams[0].name
    samples = frames * hop + more
    made = codec.encode(noise(samples, seed=samples)[None])[0]
    assert made[name].shape == (codec.streams[0].codebooks, -(-samples // hop))
    assert made[name].shape[1] == codec.num_frames(name, samples)
    filled = F.pad(noise(samples, seed=samples), (0, -samples % hop))
    assert torch.equal(made[name], ids_of(codec, filled))
    heard = codec.decode([made])[0]
    assert heard.shape == (samples,) and heard.isfinite().all()


def test_a_batch_of_unequal_clips_is_each_alone(codec):
    clips = [noise(n, seed=n) for n in (1, 3_000, 3_199, 30_000, 9_600)]
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)  # what follows is not heard
    for clip, made in zip(clips, codec.encode(padded, lengths), strict=True):
        assert torch.equal(made[codec.streams[0].name], ids_of(codec, clip))


def test_windows_of_one_length_go_together_and_stay_in_their_order(codec, monkeypatch):
    """As on an accelerator, where a rounding may differ, and here does not change a code."""
    window, context = codec.encode_window
    long = (3 * (window - 2 * context) + 1) * codec.samples_per_frame
    lengths = [long, 10 * codec.samples_per_frame, long]
    clips = [noise(n, seed=i) for i, n in enumerate(lengths)]
    alone = [ids_of(codec, clip) for clip in clips]
    batches, made = [], codec.encode_ids
    monkeypatch.setattr(codec, "encode_ids", lambda audio: (batches.append(len(audio)), made(audio))[1])
    monkeypatch.setattr(codec, "_next_batch", lambda jobs, _: OneStreamTokenizer._next_batch(jobs, 4 * window))
    together = codec.encode(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(lengths))
    assert sum(batches) == sum(len(codec._windows(n)) for n in lengths) and max(batches) == 2
    for one, tokens in zip(alone, together, strict=True):
        assert torch.equal(one, tokens[codec.streams[0].name])


def test_long_sound_is_encoded_in_windows_and_the_same_from_blocks(codec):
    hop, (window, context) = codec.samples_per_frame, codec.encode_window
    frames = 4 * (window - 2 * context) + 3
    wave = noise(frames * hop - 50)
    made = codec.encode(wave[None])[0]
    told: list[int] = []
    assert codec.encode_blocks(iter(wave.split(3_333)), len(wave), told.append).equal(made) and sum(told) == len(wave)
    pieces = [
        ids_of(codec, wave[w.read_start * hop : w.read_stop * hop])[:, w.keep_start - w.read_start :][
            :, : w.keep_stop - w.keep_start
        ]
        for w in context_windows(frames, window, context)
    ]
    assert len(pieces) == 5 and torch.equal(torch.cat(pieces, dim=1), made[codec.streams[0].name])


def test_long_sound_is_decoded_in_windows_as_in_one_piece(codec, monkeypatch):
    tokens = codec.encode(noise(40_000)[None])
    monkeypatch.setattr(type(codec), "decode_window_frames", 1000)
    whole, reach = codec.decode(tokens)[0], codec.decode_reach
    assert tokens[0][codec.streams[0].name].shape[1] > max(reach) + 3
    monkeypatch.setattr(type(codec), "decode_window_frames", 3)
    torch.testing.assert_close(codec.decode(tokens)[0], whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(type(codec), "decode_reach", (reach[0] // 3, reach[1] // 3))
    assert (codec.decode(tokens)[0] - whole).abs().max() > 1e-4  # so the reach is not far too long


def test_a_stream_of_frames_is_the_decode(codec):
    hop, name = codec.samples_per_frame, codec.streams[0].name
    tokens = codec.encode(noise(40_011)[None])[0]
    whole, frames = codec.decode([tokens])[0], tokens[name].shape[1]
    for size in (1, 7, 100):
        stream = codec.stream()
        pieces = [stream.feed(part) for part in tokens[name].split(size, dim=1)]
        assert sum(len(piece) for piece in pieces) == (frames - codec.decode_reach[1]) * hop > 0
        torch.testing.assert_close(torch.cat([*pieces, stream.finish(40_011)]), whole, atol=1e-5, rtol=0)


def test_silence_is_sound_and_loudness_no_error(codec):
    for wave in (torch.zeros(5_000), torch.full((5_000,), 1e4), torch.full((5_000,), 1e-30)):
        made = codec.encode(wave[None])[0]
        codec.require_own(made)
        assert codec.decode([made])[0].isfinite().all()


@pytest.mark.parametrize(
    "wave",
    [
        torch.zeros(1, 0),
        torch.full((1, 400), torch.nan),
        torch.zeros(400),
        torch.zeros(1, 2, 400),
        torch.ones(1, 9).long(),
    ],
)
def test_what_is_no_mono_sound_is_refused(codec, wave):
    with pytest.raises(UserError):
        codec.encode(wave)


def test_blocks_that_end_early_or_are_none_are_refused(codec):
    with pytest.raises(UserError, match="ended after 900 samples"):
        codec.encode_blocks(iter([torch.zeros(900)]), 1_000)
    with pytest.raises(UserError, match="no samples"):
        codec.encode_blocks(iter([]), 0)
    with pytest.raises(ValueError, match="more than the 500"):
        codec.encode_blocks(iter([torch.zeros(500), torch.zeros(1)]), 500)


def test_crops_of_a_clip_are_clips(codec):
    hop, name = codec.samples_per_frame, codec.streams[0].name
    tokens = codec.encode(noise(50 * hop)[None])[0]
    crop = Units(codec.streams, codec.sample_rate).crop(tokens, 10, 20)
    codec.require_own(crop)
    assert torch.equal(crop[name], tokens[name][:, 10:30])


def test_nothing_is_encoded_or_decoded_in_training_mode(codec):
    codec.train()
    try:
        for what in (lambda: codec.encode(noise(100)[None]), lambda: codec.decode([]), codec.stream):
            with pytest.raises(RuntimeError, match="call eval"):
                what()
    finally:
        codec.eval()
