"""The configuration: what does not fit is refused by its name."""

from __future__ import annotations

import dataclasses

import pytest

from codec.almtokenizer.config import ALMTokenizerConfig, PatchesConfig
from codec.io.errors import UserError
from codec.io.strict import parse


def test_the_defaults_are_the_published_codes_and_rate():
    config = ALMTokenizerConfig()
    assert (config.patches.rate, config.patches.samples, config.window) == (75.0, 320, 6)
    assert config.samples_per_frame * 12.5 == 24_000
    assert (config.codebooks, config.codes, config.least_window, config.most_window) == (3, 2048, 2, 10)
    assert config.encoder.layers + config.decoder.layers == 24


def test_plain_values_are_the_configuration():
    config = ALMTokenizerConfig(PatchesConfig(front_end="stft"), window=4)
    assert parse(ALMTokenizerConfig, dataclasses.asdict(config), "here") == config


@pytest.mark.parametrize(
    "values, message",
    [
        ({"window": 11}, "choose 2 to 10"),
        ({"window": 1}, "choose 2 to 10"),
        ({"least_window": 7, "most_window": 5}, "choose 7 to 5"),
        ({"dim": 100}, "even multiple of encoder.heads"),
        ({"encoder": {"look_ahead": 5}}, "encoder must look over a whole window"),
        ({"decoder": {"look_back": 9}}, "decoder must look over a whole window"),
        ({"patches": {"downsampling_ratios": [2, 2]}}, "same product"),
        ({"patches": {"downsampling_ratios": [], "upsampling_ratios": []}}, "1 to 16 stages"),
        ({"patches": {"decoder_channels": 8}}, "cannot halve 4 times"),
        ({"patches": {"front_end": "stft", "spectra": 3}}, "cannot have 3 spectra"),
        ({"patches": {"front_end": "stft", "fft_size": 500}}, "multiple, four times or more, of 160"),
        ({"patches": {"front_end": "mel"}}, "front_end"),
        ({"codes": 0}, "codes"),
        ({"widow": 6}, "window"),
    ],
)
def test_what_does_not_fit_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        parse(ALMTokenizerConfig, values, "here")
