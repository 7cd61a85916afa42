"""The decoder: windows that continue each other, with the modules of the codec."""

from itertools import pairwise

import pytest
import torch

from codec.io.errors import UserError
from tests.factories.codec import noise, small_codec


@pytest.fixture(scope="module")
def codec():
    return small_codec()


def test_the_decoder_has_no_weights_of_its_own(codec):
    assert codec.decoder.flow is codec.flow and codec.decoder.scalar is codec.scalar
    assert not any(name.startswith("decoder.") for name in codec.state_dict())


@pytest.mark.parametrize("frames", [0, 7, 102])
def test_first_windows_that_cannot_be_are_refused(codec, frames):
    with pytest.raises(ValueError, match="first_window must be an even number of latent frames up to 100"):
        codec.decoder.check_first_window(frames)


@pytest.mark.parametrize("value", [-1, 64])
def test_ids_of_no_codebook_are_refused(codec, value):
    with pytest.raises(UserError, match=r"structural ids must lie in \[0, 64\)"):
        codec.decoder.check_ids(torch.full((8, 2), value))


def test_windows_continue_each_other(codec):
    """Each window is given the last latents of the one before in their true place; none is made twice or left out."""
    tokens = codec.encode(noise(24_000 * 11)[None])[0]
    calls, solve = [], codec.flow.solve

    def spy(noise, mu, mask, context, context_frames, **rest):
        out = solve(noise, mu, mask, context=context, context_frames=context_frames, **rest)
        calls.append((context[0, :context_frames].clone(), context_frames, out[0]))
        return out

    codec.flow.solve = spy
    try:
        latents = codec.flow.normalise(
            codec.decoder.latents([tokens["structural"]], [tokens.num_samples], [0], 2, 1.5)
        )[0]
    finally:
        del codec.flow.solve
    assert [count for _, count, _ in calls] == [0, 20, 20, 20]
    place = 0
    for (_, _, before), (context, count, out) in pairwise(calls):
        place += len(before) - count
        assert torch.equal(context, before[-count:])
        torch.testing.assert_close(latents[place : place + len(out)], out)
    assert place + len(calls[-1][2]) == codec.scalar.config.latent_frames(tokens.num_samples)
