"""X-Codec as a tokenizer: with each kind of teacher and none, lengths, long sound, fewer codebooks, training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from auditory_sentences.lengths import Units
from codec.io.errors import UserError
from codec.layers.windows import context_windows
from codec.tokenizer import load_tokenizer
from codec.tokens import AudioTokens
from codec.xcodec.codec import STREAM, XCodec
from codec.xcodec.config import SpeechModelConfig, TeacherConfig, XCodecConfig
from tests.factories.codec import noise
from tests.factories.xcodec import SMALL, WITH_EXPERT, WITHOUT_TEACHER, small_xcodec

KINDS = {"speech model": SMALL, "expert": WITH_EXPERT, "none": WITHOUT_TEACHER}
HOP = 320


@pytest.fixture(scope="module", params=KINDS)
def codec(request):
    return small_xcodec(KINDS[request.param])


def ids_of(codec, wave):
    return codec.encode(wave[None])[0][STREAM]


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 6_400, 6_500])
def test_a_clip_has_a_frame_for_each_that_is_started(codec, samples):
    made = codec.encode(noise(samples, seed=samples)[None])[0]
    assert made[STREAM].shape == (4, -(-samples // HOP)) == (4, codec.num_frames(STREAM, samples))
    filled = F.pad(noise(samples, seed=samples), (0, -samples % HOP))
    assert torch.equal(made[STREAM], ids_of(codec, filled))
    heard = codec.decode([made])[0]
    assert heard.shape == (samples,) and heard.isfinite().all()


def test_a_batch_of_unequal_clips_is_each_alone(codec):
    clips = [noise(n, seed=n) for n in (1, 3_000, 3_199, 30_000, 9_600)]
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=0.7)  # what follows is not heard
    for clip, made in zip(clips, codec.encode(padded, lengths), strict=True):
        assert torch.equal(made[STREAM], ids_of(codec, clip))


def test_windows_of_one_length_go_together_and_stay_in_their_order(codec, monkeypatch):
    """As on an accelerator, where a rounding may differ, and here does not change a code."""
    lengths = [60_000, 19_200, 60_000]
    clips = [noise(n, seed=i) for i, n in enumerate(lengths)]
    alone = [ids_of(codec, clip) for clip in clips]
    batches, made = [], codec.encode_ids
    monkeypatch.setattr(codec, "encode_ids", lambda audio: (batches.append(len(audio)), made(audio))[1])
    monkeypatch.setattr(codec, "_next_batch", lambda jobs, _: XCodec._next_batch(jobs, 4 * SMALL.encode_window_frames))
    together = codec.encode(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor(lengths))
    assert sum(batches) == sum(len(codec._windows(n)) for n in lengths) and max(batches) == 4
    for one, tokens in zip(alone, together, strict=True):
        assert torch.equal(one, tokens[STREAM])


def test_long_sound_is_encoded_in_windows_and_the_same_from_blocks(codec):
    wave, size, context = noise(70_000), SMALL.encode_window_frames, SMALL.encode_context_frames
    made = codec.encode(wave[None])[0]
    told: list[int] = []
    assert codec.encode_blocks(iter(wave.split(3_333)), 70_000, told.append).equal(made) and sum(told) == 70_000
    pieces = [
        ids_of(codec, wave[w.read_start * HOP : w.read_stop * HOP])[:, w.keep_start - w.read_start :][
            :, : w.keep_stop - w.keep_start
        ]
        for w in context_windows(219, size, context)
    ]
    assert len(pieces) == 5 and torch.equal(torch.cat(pieces, dim=1), made[STREAM])


def test_context_makes_windows_the_whole(codec):
    """Exactly so for the acoustic branch alone, which looks less than 40 frames around: the teacher looks further."""
    wave = noise(50_000)
    whole, windows = (
        small_xcodec(replace(codec.config, encode_window_frames=size, encode_context_frames=40)) for size in (200, 100)
    )
    same = (ids_of(whole, wave) == ids_of(windows, wave)).float().mean()
    assert same == 1 if codec.teacher is None else same > 0.8
    assert whole.fingerprint != windows.fingerprint


def test_long_sound_is_decoded_in_windows_as_in_one_piece(codec, monkeypatch):
    tokens = codec.encode(noise(40_000)[None])
    whole = codec.decode(tokens)[0]
    monkeypatch.setattr(XCodec, "decode_window_frames", 3)
    torch.testing.assert_close(codec.decode(tokens)[0], whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(codec.acoustic_decoder, "reach", codec.acoustic_decoder.reach // 2)
    monkeypatch.setattr(XCodec, "decode_window_frames", 3)
    assert (codec.decode(tokens)[0] - whole).abs().max() > 1e-4  # so the reach is not far too long


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


def test_fewer_codebooks_share_the_weights_and_are_another_tokenizer(codec, tmp_path):
    wave = noise(6_400)
    whole = ids_of(codec, wave)
    for count in (1, 2, 3):
        fewer = codec.with_codebooks(count)
        made = fewer.encode(wave[None])[0]
        assert torch.equal(made[STREAM], whole[:count]) and fewer.streams[0].codebooks == count
        assert fewer.fingerprint != codec.fingerprint and fewer.fuse is codec.fuse
        with pytest.raises(UserError, match="decode them with the tokenizer that made them"):
            codec.decode([made])
        fewer.save_pretrained(tmp_path / str(count))
        again = load_tokenizer(tmp_path / str(count))
        assert again.encode(wave[None])[0].equal(made)
        assert again.with_codebooks(4).fingerprint == codec.fingerprint
        assert torch.equal(again.decode([made])[0], fewer.decode([made])[0])
    assert codec.with_codebooks(4).fingerprint == codec.fingerprint and codec.streams[0].codebooks == 4
    for count in (0, 5):
        with pytest.raises(UserError, match="choose 1 to 4"):
            codec.with_codebooks(count)


def test_a_stream_of_frames_is_the_decode(codec):
    tokens = codec.encode(noise(20_011)[None])[0]
    whole = codec.decode([tokens])[0]
    for size in (1, 7, 100):
        stream = codec.stream()
        pieces = [stream.feed(part) for part in tokens[STREAM].split(size, dim=1)]
        assert sum(len(piece) for piece in pieces) == (63 - codec.acoustic_decoder.reach) * HOP
        torch.testing.assert_close(torch.cat([*pieces, stream.finish(20_011)]), whole, atol=1e-5, rtol=0)


def test_crops_of_a_clip_are_clips(codec):
    tokens = codec.encode(noise(16_000)[None])[0]
    units = Units(codec.streams, codec.sample_rate)
    crop = units.crop(tokens, 10, 20)
    codec.require_own(crop)
    assert torch.equal(crop[STREAM], tokens[STREAM][:, 10:30])


def test_training_reaches_all_but_the_teacher(codec):
    torch.manual_seed(0)
    fresh = small_xcodec(codec.config).train()
    wave = torch.stack([noise(3_200, seed=1), noise(3_200, seed=2)])
    made = fresh(wave)
    assert made.waveforms.shape == wave.shape and made.ids.shape == (2, 10, 4) and made.losses.shape == (4,)
    loss = (made.waveforms - wave).square().mean() + made.losses.sum()
    if fresh.teacher is None:
        assert made.features is None and made.target is None
    else:
        assert made.features.shape == made.target.shape == (2, fresh.teacher.dim, 10)
        assert not fresh.teacher.training and not made.target.requires_grad
        loss = loss + (made.features - made.target).square().mean()
    loss.backward()
    for name, parameter in fresh.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, (
                name
            )
    with pytest.raises(RuntimeError, match="call eval"):
        fresh.encode(wave)


def test_the_fingerprint_knows_weights_and_what_changes_ids(codec):
    assert small_xcodec(codec.config).fingerprint == codec.fingerprint
    assert small_xcodec(replace(codec.config, batch_frames=77)).fingerprint == codec.fingerprint
    assert small_xcodec(replace(codec.config, encode_context_frames=9)).fingerprint != codec.fingerprint
    assert small_xcodec(codec.config, seed=1).fingerprint != codec.fingerprint


def test_ids_of_another_stream_and_tokens_of_another_codec(codec):
    with pytest.raises(KeyError):
        codec.dequantise("structural", torch.zeros(1, 1, 4, dtype=torch.int64))
    with pytest.raises(UserError):
        codec.decode([AudioTokens({STREAM: torch.zeros(4, 1, dtype=torch.int64)}, 320, "another")])


def test_the_published_sizes():
    with torch.device("meta"):
        codec = XCodec(XCodecConfig())
    spec = codec.streams[0]
    assert (spec.rate, spec.codebooks, spec.codes, codec.sample_rate) == (50.0, 8, 1024, 16_000)
    assert codec.fuse.in_features == 1024 and codec.acoustic_encoder.conv_out.in_channels == 1024
    assert codec.identity_values() == {}


def test_a_teacher_whose_frames_do_not_fit_is_refused():
    slow = SpeechModelConfig(**(vars(SMALL.teacher.model) | {"conv_stride": (5, 2, 2, 2, 2, 2, 4)}))
    with pytest.raises(UserError, match="must fit each other"):
        XCodec(replace(SMALL, teacher=TeacherConfig(model=slow)))
    with pytest.raises(UserError, match="multiple of the other"):
        XCodec(replace(WITH_EXPERT, downsampling_ratios=(7, 5, 4, 2), upsampling_ratios=(7, 5, 4, 2)))
