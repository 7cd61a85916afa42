"""Configurations that cannot be built are refused with what is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from codec.io.errors import UserError
from codec.io.strict import parse
from codec.xcodec.config import SpeechModelConfig, XCodecConfig
from tests.factories.one_stream.xcodec import SMALL, WITH_EXPERT, WITHOUT_TEACHER

FAULTS = {
    "downsampling_ratios": ([8, 5, 4, 3], "same product"),
    "upsampling_ratios": ([], "1 to 16 stages"),
    "downsampling_ratios ": ([320, 1], "at least 2"),
    "decoder_channels": (8, "cannot halve 4 times"),
    "codebooks_used": (5, "choose 1 to 4"),
    "codebooks_used ": (0, "at least 1"),
    "encode_context_frames": (30, "exceed twice"),
    "sample_rate": (0, "sample_rate"),
    "codes": ("many", "codes"),
    "teacher": ({}, "one of source, model and expert"),
    "teacher ": ({"source": "a", "model": {}}, "one of source, model and expert"),
    "teacher  ": ({"model": {"model_type": "whisper"}}, "must be one of hubert, wavlm"),
    "teacher   ": ({"model": {"num_attention_heads": 7}}, "attention heads"),
    "teacher    ": ({"model": {"conv_dim": [512]}}, "as many convolutions"),
    "semantic": ({"strides": [1]}, "as many stages"),
    "semantic ": ({"channel_ratios": [1, 3]}, "must be 1"),
    "semantic  ": ({"kernel_size": 2}, "odd"),
    "acoustic_dims": (1, "did you mean 'acoustic_dim'"),
}


@pytest.mark.parametrize("key", FAULTS)
def test_nonsense_is_refused(key):
    value, message = FAULTS[key]
    with pytest.raises(UserError, match=message) as caught:
        parse(XCodecConfig, dataclasses.asdict(SMALL) | {key.strip(): value}, "config.json")
    assert str(caught.value).startswith("config.json")


@pytest.mark.parametrize("config", [SMALL, WITH_EXPERT, WITHOUT_TEACHER, XCodecConfig()])
def test_plain_values_come_back(config):
    values = dataclasses.asdict(config)
    assert parse(XCodecConfig, values, "here") == config
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    assert parse(XCodecConfig, lists, "here") == config


def test_frames_are_those_of_the_librarys_convolutions():
    assert [SpeechModelConfig().frames(n) for n in (0, 399, 400, 719, 720, 16_320)] == [0, 0, 1, 1, 2, 50]
    assert XCodecConfig().frames(1) == XCodecConfig().frames(320) == 1 and XCodecConfig().frames(321) == 2
