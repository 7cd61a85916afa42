"""Patchify and unpatchify: lengths, and how far they reach."""

from __future__ import annotations

import pytest
import torch

from codec.almtokenizer.config import PatchesConfig
from codec.almtokenizer.patches import Patchify, Unpatchify

KINDS = {
    "samples": PatchesConfig(encoder_channels=2, decoder_channels=32),
    "two spectra": PatchesConfig("stft", fft_size=640, spectra=2, convolutions=2),
    "one spectrum": PatchesConfig("stft", fft_size=1280, spectra=1, convolutions=0),
    "four spectra": PatchesConfig("stft", fft_size=640, spectra=4, convolutions=1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_patches_are_so_many_samples_either_way_and_depend_on_no_more_than_said(kind):
    torch.manual_seed(0)
    config = KINDS[kind]
    patchify, unpatchify = Patchify(config, 8), Unpatchify(config, 8)
    for parameter in unpatchify.parameters():  # else the window's edges are too quiet to be told from nothing
        torch.nn.init.normal_(parameter, std=0.3)
    for patches in (1, 2, 30):
        assert patchify(torch.randn(2, 320 * patches)).shape == (2, patches, 8)
        assert unpatchify(torch.randn(2, patches, 8)).shape == (2, 320 * patches)
    for module, given in ((patchify, torch.randn(1, 320 * 61)), (unpatchify, torch.randn(1, 61, 8))):
        reach = module.reach
        given.requires_grad_()
        made = module(given)
        made = made[:, 30] if module is patchify else made.view(1, 61, 320)[:, 30]
        made.abs().sum().backward()
        gradient = given.grad[0].view(61, -1).abs().sum(1)
        touched = gradient.nonzero()[:, 0].tolist()
        assert 30 - reach <= touched[0] <= 30 - reach + 4 and 30 + reach - 4 <= touched[-1] <= 30 + reach


@pytest.mark.parametrize("kind", KINDS)
def test_around_a_clip_is_silence(kind):
    patchify, wave = Patchify(KINDS[kind], 8), torch.randn(1, 320 * 12)
    more = torch.nn.functional.pad(wave, (320 * 5, 320 * 20))
    torch.testing.assert_close(patchify(more)[:, 5:17], patchify(wave), atol=1e-5, rtol=0)


@pytest.mark.parametrize("spectra, fft_size", [(1, 1280), (2, 640), (4, 640)])
def test_the_right_spectra_are_the_sound(spectra, fft_size, monkeypatch):
    """The inverse transform, given the magnitudes and phases that the sound has."""
    head = Unpatchify(PatchesConfig("stft", fft_size=fft_size, spectra=spectra, convolutions=0), 8)
    wave = 0.3 * torch.randn(1, 320 * 20)
    spectrum = head.spectrogram.transform(wave)  # (B, spectra T, bands)
    levels = head.spectrogram.analyse(wave).transpose(1, 2)
    exact = torch.cat([levels, spectrum.angle()], dim=2).transpose(1, 2)
    monkeypatch.setattr(head.convolutions, "forward", lambda _: exact)
    made = head(torch.zeros(1, 20, 8))
    assert (made - wave).abs().max() < 1e-3  # the floor under the logarithm
