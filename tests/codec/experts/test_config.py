"""Configurations of experts: they travel as JSON, and what cannot be is refused."""

import json
from dataclasses import asdict

import pytest
import torch

from codec.experts.base import load_expert
from codec.experts.config import ExpertConfig, MelView
from codec.experts.music_encoder import MusicEncoderConfig
from codec.io.strict import parse


def test_views_travel_with_the_configuration():
    view = MelView(bands=24, stack=1, window=600, low=60, high=8000)
    config = ExpertConfig("speech_text", views={"speech_text": view})
    values = json.loads(json.dumps(asdict(config)))
    again = parse(ExpertConfig, values, "config.json")
    assert again == config
    assert load_expert(again).features(torch.zeros(1, 24000))["speech_text"].shape == (1, 24, 51)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "smell"}, "unknown role 'smell'"),
        ({"role": "music", "kind": "psychic"}, "unknown kind 'psychic'"),
        ({"role": "phone", "kind": "whisper"}, "needs a source"),
        (
            {"role": "music", "views": {"music": MelView(8, 1, 600, 60, 8000)}},
            "needs a view for each of music_acoustic",
        ),
        ({"role": "music", "kind": "conformer"}, "needs a source"),
        ({"role": "music", "kind": "conformer", "source": "x", "sizes": MusicEncoderConfig()}, "from no source"),
        ({"role": "music", "kind": "whisper", "sizes": MusicEncoderConfig()}, "kind 'conformer'"),
        ({"role": "music", "taps": {"music": (1,)}}, "needs layers for each of music_acoustic, music_semantic"),
    ],
)
def test_configurations_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExpertConfig(**arguments)
