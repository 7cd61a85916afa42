"""A stream gives what the offline decode gives, early, in any pieces, from bounded memory."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io.errors import UserError
from codec.io.shipped import STARTER_CODEC
from codec.reasoning import decoder
from codec.reasoning.config import ScalarConfig
from codec.reasoning.decoder import Decoder
from codec.reasoning.flow_decoder import ClipNoise
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.tokenizer import load_tokenizer
from tests.factories.codec import SMALL, SMALL_SCALAR, noise, small_codec
from tests.factories.tokens import both
from tests.factories.uniaudio import tiny_codec

QUICK = dataclasses.replace(SMALL, scalar=dataclasses.replace(SMALL_SCALAR, init_channel=1, res_kernel_size=2))


@pytest.fixture(scope="module")
def codec():
    return small_codec(QUICK)


def random_tokens(codec, frames, seed=0, num_samples=None):
    ids = torch.randint(0, 64, (8, frames), generator=torch.Generator().manual_seed(seed))
    tokens = codec.from_frames({"descriptive": ids[:, :1], "structural": ids})
    if num_samples is None:
        return tokens
    return both(torch.zeros(8, num_samples // 4800 + 1, dtype=torch.int64), ids, num_samples, codec.fingerprint)


def streamed(codec, tokens, sizes, **options):
    """The pieces that come of feeding so many frames at a time, over and over."""
    stream, pieces, place = codec.stream(**options), [], 0
    while place < tokens["structural"].shape[1]:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.feed(tokens["structural"][:, place : place + size]))
        place += size
    return [*pieces, stream.finish(tokens.num_samples)]


@pytest.mark.parametrize("first", [None, 2, 36])
@pytest.mark.parametrize("num_samples", [1, 960, 961, 1919, 1920, 48_000, 24_000 * 5 + 13])
def test_a_stream_gives_the_offline_decode(codec, num_samples, first):
    tokens = codec.encode(noise(num_samples)[None])[0]
    how = {"steps": 2, "seed": 3, "guidance": 2.0, "first_window": first}
    pieces = streamed(codec, tokens, [4], **how)
    offline = codec.decode([tokens], **how)[0]
    torch.testing.assert_close(torch.cat(pieces), offline, atol=1e-5, rtol=0)
    assert num_samples == 1 or offline.abs().max() > 0.05


def test_a_stream_passes_over_the_borders_of_the_offline_scalar_windows(codec, monkeypatch):
    monkeypatch.setattr(decoder, "_SCALAR_WINDOW", 90)  # else 40 s
    monkeypatch.setattr(decoder, "_SCALAR_OVERLAP", 40)
    tokens = random_tokens(codec, 120)
    offline = codec.decode([tokens], steps=1)[0]
    torch.testing.assert_close(torch.cat(streamed(codec, tokens, [9], steps=1)), offline, atol=1e-5, rtol=0)


def test_the_default_first_window_is_that_of_all_others(codec):
    tokens = random_tokens(codec, 90)
    whole = codec.decode([tokens], steps=2)[0]
    assert torch.equal(codec.decode([tokens], steps=2, first_window=100)[0], whole)
    assert not torch.allclose(codec.decode([tokens], steps=2, first_window=20)[0], whole, atol=1e-3)


def test_a_clip_in_a_batch_takes_the_same_first_window_as_alone(codec):
    tokens = [random_tokens(codec, frames, frames) for frames in (3, 90, 31)]
    together = codec.decode(tokens, steps=2, seed=[1, 2, 3], first_window=12)
    for clip, seed, wave in zip(tokens, (1, 2, 3), together, strict=True):
        alone = torch.cat(streamed(codec, clip, [8], steps=2, seed=seed, first_window=12))
        torch.testing.assert_close(alone, wave, atol=1e-5, rtol=1e-4)


def test_the_latents_are_the_same_bit_for_bit(codec, monkeypatch):
    tokens, made, solve = random_tokens(codec, 100), [], Decoder.window_latents

    def spy(*given, **how):
        made.append(solve(*given, **how))
        return made[-1]

    monkeypatch.setattr(Decoder, "window_latents", spy)
    codec.decode([tokens], steps=2, first_window=30)
    offline, made = made, []
    streamed(codec, tokens, [3], steps=2, first_window=30)
    assert len(offline) == len(made) == 4
    assert all(torch.equal(a, b) for a, b in zip(offline, made, strict=True))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any), st.sampled_from([6, 40]))
def test_any_split_of_the_frames_gives_exactly_the_same_samples(codec, sizes, first):
    tokens = random_tokens(codec, 60)
    at_once = torch.cat(streamed(codec, tokens, [60], steps=1, first_window=first))
    assert torch.equal(torch.cat(streamed(codec, tokens, sizes, steps=1, first_window=first)), at_once)


def test_the_first_sound_needs_the_first_window_and_one_frame_more(codec):
    tokens = random_tokens(codec, 75)
    ahead = codec.scalar.decoder_reach[1]
    lengths = [len(piece) for piece in streamed(codec, tokens, [1], steps=1, first_window=12)]
    came = [frame for frame, length in enumerate(lengths, 1) if length]
    assert came == [7, 19, 43, 76]  # 12 latent frames are six frames; then 24 and 48 more; then the end
    assert lengths[6] == (12 - ahead) * 960
    assert sum(lengths[:43]) == (84 - ahead) * 960 and sum(lengths) == tokens.num_samples


def test_an_early_window_gives_a_second_of_sound(codec):
    tokens, window = random_tokens(codec, 75), codec.low_latency_window
    lengths = [len(piece) for piece in streamed(codec, tokens, [1], steps=1, first_window=window)]
    assert next(length for length in lengths if length) in (24 * 960, 25 * 960)
    assert next(frame for frame, length in enumerate(lengths, 1) if length) == window // 2 + 1


def test_memory_stays_the_same_however_long_the_clip(codec):
    stream, most = codec.stream(steps=1, first_window=20), []
    for start in range(0, 1000, 25):
        stream.feed(random_tokens(codec, 25, start)["structural"])
        tensors = [value for value in vars(stream).values() if isinstance(value, torch.Tensor)]
        tensors.append(stream._source._drawn)
        most.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    assert max(most[20:]) <= max(most[:20])


def test_one_frame_and_none(codec):
    stream = codec.stream(steps=1)
    assert stream.finish().shape == (0,)
    stream = codec.stream(steps=1)
    assert stream.feed(torch.zeros(8, 0, dtype=torch.int64)).shape == (0,)
    assert stream.finish(0).shape == (0,)
    ids = torch.zeros(8, 1, dtype=torch.int64)
    stream = codec.stream(steps=1)
    assert stream.feed(ids).shape == (0,) and stream.finish().shape == (1,)
    tokens = random_tokens(codec, 1, num_samples=1919)
    assert torch.equal(torch.cat(streamed(codec, tokens, [1], steps=1)), codec.decode([tokens], steps=1)[0])


def test_what_does_not_fit_is_refused_and_nothing_of_it_taken(codec):
    tokens = random_tokens(codec, 40)
    stream = codec.stream(steps=1, first_window=20)
    pieces = [stream.feed(tokens["structural"][:, :20])]
    for wrong in (64, -1):
        with pytest.raises(UserError, match=r"structural ids must lie in \[0, 64\)"):
            stream.feed(torch.full((8, 3), wrong))
    for shape in ((7, 3), (8,), (1, 8, 3)):
        with pytest.raises(ValueError, match=r"of shape \(8, T\)"):
            stream.feed(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64"):
        stream.feed(torch.zeros(8, 3))
    pieces.append(stream.feed(tokens["structural"][:, 20:]))
    for num_samples in (0, -1, 39 * 1920 - 1, 40 * 1920):
        with pytest.raises(ValueError, match="structural frames, but got 40"):
            stream.finish(num_samples)
    pieces.append(stream.finish())
    offline = codec.decode([tokens], steps=1, first_window=20)[0]
    torch.testing.assert_close(torch.cat(pieces), offline, atol=1e-5, rtol=0)
    for call in (lambda: stream.feed(tokens["structural"]), stream.finish):
        with pytest.raises(RuntimeError, match="finished"):
            call()


def test_first_windows_that_cannot_be_are_refused(codec):
    for wrong in (0, -2, 7, 102):
        with pytest.raises(ValueError, match="even number of latent frames up to 100"):
            codec.stream(first_window=wrong)
        with pytest.raises(ValueError, match="even number of latent frames up to 100"):
            codec.decode([random_tokens(codec, 3)], first_window=wrong)


def test_training_mode_does_not_stream():
    with pytest.raises(RuntimeError, match="call eval"):
        small_codec().train().stream()


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.sampled_from([1, 3, 136]))
def test_noise_is_the_same_in_any_pieces(sizes, latent_dim):
    source = ClipNoise(latent_dim, seed=5)
    pieces = torch.cat([source.draw(size) for size in sizes])
    assert torch.equal(pieces, ClipNoise(latent_dim, seed=5).draw(sum(sizes)))
    assert pieces.numel() == 0 or not torch.equal(pieces, ClipNoise(latent_dim, seed=6).draw(sum(sizes)))


@pytest.mark.parametrize(
    "config",
    [
        SMALL_SCALAR,
        ScalarConfig(init_channel=1, latent_hidden_dim=4),  # the published shape
        ScalarConfig(init_channel=1, latent_hidden_dim=4, causal=False),
    ],
)
def test_the_scalar_decoder_reaches_as_far_as_it_says(config):
    torch.manual_seed(0)
    scalar = ScalarAutoencoder(config).double()
    before, after = scalar.decoder_reach
    latents = torch.randn(1, config.latent_hidden_dim, before + after + 20, dtype=torch.float64, requires_grad=True)
    first, stop = before + 4, before + 6  # the stretch that is listened to
    sound = scalar.decode_signal(latents)[..., first * 960 : stop * 960]
    (gradient,) = torch.autograd.grad((sound * torch.randn_like(sound)).sum(), latents)
    touched = gradient.abs().sum(dim=(0, 1)).nonzero()[:, 0]
    # The reach is a whole number of frames, so the last one of it may be left alone.
    assert first - before <= touched[0] <= first - before + 1
    assert stop + after - 2 <= touched[-1] <= stop - 1 + after


def in_float64(codec, monkeypatch):
    """Sound from latents in double precision: then a phase search has no rounding to enlarge."""
    scalar = copy.deepcopy(codec.scalar).double()
    monkeypatch.setattr(codec.scalar, "decode", lambda latents, lengths=None: scalar.decode(latents.double(), lengths))


def test_a_phase_search_hears_enough_of_what_follows(monkeypatch):
    codec = tiny_codec()
    codec.scalar.spectrogram.iterations = 32
    in_float64(codec, monkeypatch)
    tokens = random_tokens(codec, 60)
    pieces = streamed(codec, tokens, [7], steps=1, first_window=40)
    offline = codec.decode([tokens], steps=1, first_window=40)[0]
    torch.testing.assert_close(torch.cat(pieces), offline, atol=1e-5, rtol=0)


def test_the_shipped_codec_streams_what_it_decodes(monkeypatch):
    codec = load_tokenizer(STARTER_CODEC)
    seconds = torch.arange(24_000 * 4) / 24_000
    audio = 0.2 * torch.sin(2 * torch.pi * (200 + 100 * seconds) * seconds) + 0.2 * noise(24_000 * 4)
    tokens = codec.encode(audio[None])[0]
    how = {"steps": 2, "first_window": codec.low_latency_window}
    pieces = streamed(codec, tokens, [1], **how)
    error = torch.cat(pieces) - codec.decode([tokens], **how)[0]
    assert sum(len(piece) > 0 for piece in pieces) > 1
    assert error.square().mean().sqrt() < 0.03 * torch.cat(pieces).square().mean().sqrt()
    in_float64(codec, monkeypatch)
    exact = torch.cat(streamed(codec, tokens, [1], **how)) - codec.decode([tokens], **how)[0]
    assert exact.abs().max() < 1e-8
