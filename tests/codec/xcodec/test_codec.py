"""X-Codec as a tokenizer: with each kind of teacher and none, lengths, long sound, fewer codebooks, training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from codec.tokens import AudioTokens
from codec.xcodec.codec import STREAM, XCodec
from codec.xcodec.config import SpeechModelConfig, TeacherConfig, XCodecConfig
from tests.factories.codec import noise
from tests.factories.one_stream.xcodec import SMALL, WITH_EXPERT, WITHOUT_TEACHER, small_xcodec

KINDS = {"speech model": SMALL, "expert": WITH_EXPERT, "none": WITHOUT_TEACHER}
HOP = 320


@pytest.fixture(scope="module", params=KINDS)
def codec(request):
    return small_xcodec(KINDS[request.param])


def ids_of(codec, wave):
    return codec.encode(wave[None])[0][STREAM]


def test_context_makes_windows_the_whole(codec):
    """Exactly so for the acoustic branch alone, which looks less than 40 frames around: the teacher looks further."""
    wave = noise(50_000)
    whole, windows = (
        small_xcodec(replace(codec.config, encode_window_frames=size, encode_context_frames=40)) for size in (200, 100)
    )
    same = (ids_of(whole, wave) == ids_of(windows, wave)).float().mean()
    assert same == 1 if codec.teacher is None else same > 0.8
    assert whole.fingerprint != windows.fingerprint


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
