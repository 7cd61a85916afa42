"""The mel expert: what its features show, and that their defaults stay."""

import pytest
import torch

from codec.experts.base import load_expert
from codec.experts.config import RATES, ExpertConfig, MelView
from codec.experts.mel import band_triangles
from codec.tokens import SAMPLE_RATE


def test_mel_features_show_pitch_and_leave_out_the_microphone():
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    low, high = (torch.sin(2 * torch.pi * f * time)[None] for f in (220.0, 440.0))
    music = load_expert(ExpertConfig("music"))
    bands = [music.features(tone)["music_semantic"][0, :, 12].argmax().item() for tone in (low, high)]
    assert 0 < bands[1] - bands[0] == pytest.approx(121 / 7, abs=1)  # 121 steps span 7 octaves
    speech = load_expert(ExpertConfig("speech_text"))
    loud = 0.1 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(1))
    near, far = (speech.features(gain * loud)["speech_text"] for gain in (1.0, 0.3))
    assert (near - far).abs().mean() < 0.02 < 0.2 < near.std()


GOLDEN = {  # mean, standard deviation and one value of the features of a chirp
    "speech_text": (0.0000, 1.1914, 4.0986),
    "phone": (-2.5677, 1.2162, -0.2838),
    "music_acoustic": (-2.6485, 1.0818, -2.9999),
    "music_semantic": (-2.3534, 1.3486, -3.0000),
}


def test_mel_features_stay_what_trained_codecs_were_trained_on():
    """These are the defaults of new codecs. A trained one carries its views in its configuration."""
    time = torch.arange(12000) / SAMPLE_RATE
    chirp = 0.3 * torch.sin(2 * torch.pi * (200 * time + 1500 * time**2))[None]
    found = {name: v for role in RATES for name, v in load_expert(ExpertConfig(role)).features(chirp).items()}
    assert found.keys() == GOLDEN.keys()
    for name, (mean, deviation, value) in GOLDEN.items():
        feature = found[name]
        assert feature.mean().item() == pytest.approx(mean, abs=2e-3), name
        assert feature.std().item() == pytest.approx(deviation, abs=2e-3), name
        assert feature[0, 20, 5].item() == pytest.approx(value, abs=5e-3), name


@pytest.mark.parametrize("stack", [1, 2])
def test_rhythm_shows_the_period_of_onsets(stack):
    view = MelView(bands=24, stack=stack, window=1200, low=60, high=8000, rhythm=45)
    views = {"music_acoustic": view, "music_semantic": view}
    expert = load_expert(ExpertConfig("music", views=views))
    assert expert.dims["music_semantic"] == 24 * stack + 45
    noise = torch.randn(1, 10 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    time = torch.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    for period in (8, 13, 19):  # in spectra
        beats = noise * torch.exp(-30 * (time % (period / 25 / stack)))
        rhythm = expert.features(beats)["music_semantic"][0, 24 * stack :]
        assert 1 + rhythm[: period + 4].mean(1).argmax() == period
        assert rhythm[period - 1].min() > 0.8 and rhythm.abs().max() <= 1 + 1e-5
    assert not expert.features(torch.zeros(1, 24_000))["music_semantic"][:, 24 * stack :].any()


def test_rhythm_of_a_clip_does_not_depend_on_its_batch():
    view = MelView(bands=24, stack=1, window=1200, low=60, high=8000, rhythm=50)
    expert = load_expert(ExpertConfig("music", views={"music_acoustic": view, "music_semantic": view}))
    noise = torch.randn(2, 5 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([40_000, noise.shape[1]])
    together = expert.features(noise, lengths)["music_semantic"]
    alone = expert.features(noise[:1, :40_000])["music_semantic"]
    torch.testing.assert_close(together[:1, :, : alone.shape[2]], alone, atol=1e-5, rtol=0)
    assert not together[0, :, alone.shape[2] :].any()


def test_tables_are_made_where_shapes_alone_are_wanted():
    view = MelView(bands=24, stack=1, window=600, low=60, high=8000)
    with torch.device("meta"):
        made = band_triangles(view, 1024)
    assert made.device.type == "cpu" and torch.equal(made, band_triangles(view, 1024))
