"""The acoustic branch: lengths, how far it reaches, and weight norm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from codec.layers.acoustic import apply_weight_norm, fold_weight_norm, folded, split_weights
from codec.xcodec.codec import XCodec
from tests.factories.one_stream.xcodec import WITHOUT_TEACHER, small_xcodec

RATIOS = [((8, 5, 4, 2), (8, 5, 4, 2)), ((4, 4, 5, 4), (5, 4, 4, 4)), ((2, 3), (3, 2)), ((7,), (7,))]


@pytest.mark.parametrize("down, up", RATIOS)
def test_frames_are_so_many_samples_either_way_and_depend_on_no_more_than_said(down, up):
    codec = small_xcodec(replace(WITHOUT_TEACHER, downsampling_ratios=down, upsampling_ratios=up))
    decoder, hop = codec.acoustic_decoder, codec.config.hop
    for frames in (1, 2, 2 * decoder.reach + 9):
        assert codec.acoustic_encoder(torch.randn(1, 1, hop * frames)).shape == (1, 16, frames)
        given = torch.randn(1, 16, frames, requires_grad=True)
        assert decoder(given).shape == (1, 1, hop * frames)
    middle, encoder = decoder.reach + 4, codec.acoustic_encoder
    decoder(given)[..., middle * hop : (middle + 1) * hop].sum().backward()
    touched = given.grad.abs().sum((0, 1)).nonzero()[:, 0].tolist()
    assert middle - decoder.reach <= touched[0] <= middle - decoder.reach + 3
    assert middle + decoder.reach - 3 <= touched[-1] <= middle + decoder.reach
    wave = torch.randn(1, 1, hop * (2 * encoder.reach + 9), requires_grad=True)
    encoder(wave)[..., encoder.reach + 4].sum().backward()
    touched = (wave.grad[0, 0].nonzero()[:, 0] // hop).tolist()
    assert 4 <= touched[0] <= 6 and 2 * encoder.reach + 2 <= touched[-1] <= 2 * encoder.reach + 4


def test_weight_norm_is_split_for_training_and_folded_for_use(tmp_path):
    codec = small_xcodec(WITHOUT_TEACHER)
    wave, before = torch.randn(1, 3_200), {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    expected = codec(wave).waveforms
    for part in (codec.acoustic_encoder, codec.acoustic_decoder):
        apply_weight_norm(part)
        apply_weight_norm(part)  # nothing is split twice
    assert "acoustic_decoder.stages.0.conv.parametrizations.weight.original0" in codec.state_dict()
    torch.testing.assert_close(codec(wave).waveforms, expected)
    with pytest.raises(RuntimeError, match="call fold_weight_norm"):
        codec.save_pretrained(tmp_path)
    optimiser = torch.optim.SGD(codec.parameters(), lr=1e-3)
    codec(wave).waveforms.square().mean().backward()
    optimiser.step()
    whole = folded(codec.state_dict())
    trained = codec(wave).waveforms
    for part in (codec.acoustic_encoder, codec.acoustic_decoder):
        fold_weight_norm(part)
    after = codec.state_dict()
    assert set(after) == set(before) == set(whole) and all(torch.equal(whole[name], after[name]) for name in after)
    torch.testing.assert_close(codec(wave).waveforms, trained)
    assert (after["acoustic_decoder.conv_in.weight"] != before["acoustic_decoder.conv_in.weight"]).any()
    XCodec(codec.config).load_state_dict(after)


def test_split_weights_are_known_by_both_their_parts():
    direction, length = torch.zeros(4, 2, 3), torch.zeros(4, 1, 1)
    assert split_weights({"a.weight_v": direction, "a.weight_g": length}) == {"a.weight": ("a.weight_g", "a.weight_v")}
    assert split_weights({"a.weight_v": direction}) == split_weights({"a.weight_g": length}) == {}
    assert split_weights({"a.weight_v": direction, "a.weight_g": torch.zeros(4)}) == {}
