"""The teacher of X-Codec: a speech model of transformers, or an expert encoder at another rate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torchaudio.functional import resample

from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from codec.xcodec.codec import XCodec
from codec.xcodec.config import TeacherConfig
from codec.xcodec.teacher import ExpertTeacher, SpeechTeacher, library_config, make_teacher
from tests.factories.codec import noise
from tests.factories.one_stream.xcodec import CONFORMER, HUBERT, SMALL, WITH_EXPERT

MUSIC = replace(CONFORMER, role="music", taps={"music_acoustic": (1,), "music_semantic": (0, 1, 2)})
MUSIC = replace(MUSIC, sizes=replace(CONFORMER.sizes, hop=240, fft_size=960))


@pytest.fixture
def hubert(tmp_path):
    """(the library's model, its folder)"""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**(library_config(HUBERT).to_dict() | {"mask_time_prob": 0.05}))).eval()
    model.save_pretrained(tmp_path / "hubert")
    return model, tmp_path / "hubert"


def test_a_model_is_read_from_its_source_once(hubert, tmp_path):
    model, folder = hubert
    codec = XCodec(replace(SMALL, teacher=TeacherConfig(source=str(folder)))).eval()
    assert codec.config.teacher == TeacherConfig(model=HUBERT)
    wave = noise(3_200)[None]
    with torch.no_grad():
        states = model(torch.nn.functional.pad(wave, (160, 160)), output_hidden_states=True).hidden_states
    torch.testing.assert_close(codec.teacher.features(wave), torch.stack(states).mean(0).transpose(1, 2))
    codec.save_pretrained(tmp_path / "codec")
    (folder / "config.json").unlink()
    again = load_tokenizer(tmp_path / "codec")
    assert again.encode(wave)[0].equal(codec.encode(wave)[0])


def test_a_source_that_cannot_teach_is_refused(tmp_path):
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    values = library_config(HUBERT).to_dict()
    Wav2Vec2Model(Wav2Vec2Config(**{k: v for k, v in values.items() if k != "model_type"})).save_pretrained(tmp_path)
    for source, message in (
        (tmp_path, "'wav2vec2' cannot be the teacher"),
        (tmp_path / "nothing", "could not be read"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            make_teacher(TeacherConfig(source=str(source)), 16_000, 320, 1)
        assert str(source) in str(caught.value)


def test_a_teacher_is_frozen_in_any_mode():
    for config in (SMALL, WITH_EXPERT):
        teacher = XCodec(config).train().teacher
        assert not any(part.training for part in teacher.modules())
        assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_an_expert_gives_the_mean_of_its_taps():
    teacher = make_teacher(TeacherConfig(expert=CONFORMER), 16_000, 320, 1)
    assert isinstance(teacher, ExpertTeacher) and teacher.config.expert == CONFORMER
    wave = noise(6_400)[None]
    features = teacher.features(wave)
    assert features.shape == (1, 16, 20)
    states = teacher.expert.encoder(torch.nn.functional.pad(resample(wave, 16_000, 24_000), (0, 480)))
    torch.testing.assert_close(features, torch.stack(states).mean(0).transpose(1, 2)[..., :20])


@pytest.mark.parametrize("samples", [320, 960, 6_400])
def test_an_expert_of_another_rate_is_brought_to_the_codecs(samples):
    wave, frames = noise(samples)[None], samples // 320
    slow = make_teacher(TeacherConfig(expert=MUSIC), 16_000, 320, 1)
    features = slow.features(wave)  # 25 Hz for 50
    assert slow.feature == "music_semantic" and features.shape == (1, 16, frames)
    assert torch.equal(features[..., 0:-1:2], features[..., 1::2]) or frames % 2
    fast = make_teacher(TeacherConfig(expert=CONFORMER), 16_000, 640, 1)  # 50 Hz for 25
    whole = make_teacher(TeacherConfig(expert=CONFORMER), 16_000, 320, 1).features(wave)
    halves = fast.features(wave[:, : samples // 640 * 640]) if samples >= 640 else None
    assert halves is None or halves.shape == (1, 16, samples // 640) and fast.frames(1_280) == 2
    assert whole.shape[-1] == frames


def test_a_codec_of_24_khz_needs_no_other_rate():
    config = replace(WITH_EXPERT, sample_rate=24_000, downsampling_ratios=(8, 5, 4, 3), upsampling_ratios=(8, 5, 4, 3))
    codec = XCodec(config).eval()
    assert codec.streams[0].rate == 50 and codec.sample_rate == 24_000
    assert codec.num_frames("codes", 24_000) == 50 and codec.num_frames("codes", 24_001) == 51
    wave = noise(4_800)[None]
    expert = load_expert(CONFORMER)
    expert.load_state_dict(codec.teacher.expert.state_dict())
    torch.testing.assert_close(codec.teacher.features(wave), expert.features(wave)["phone"][..., :10])


def test_fixed_features_may_teach_too():
    teacher = make_teacher(TeacherConfig(expert=ExpertConfig("phone")), 16_000, 320, 1)
    assert teacher.features(noise(3_200)[None]).shape == (1, teacher.dim, 10)


def test_what_a_transformers_configuration_says_comes_back():
    assert isinstance(make_teacher(TeacherConfig(model=HUBERT), 16_000, 320, 1), SpeechTeacher)
    values = library_config(HUBERT)
    assert values.mask_time_prob == 0 and values.layerdrop == 0 and list(values.conv_dim) == [8] * 7
    wavlm = library_config(replace(HUBERT, model_type="wavlm", num_buckets=40))
    assert wavlm.num_buckets == 40 and not hasattr(wavlm, "conv_pos_batch_norm")
