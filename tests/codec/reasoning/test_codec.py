"""Encode and decode: any length, any batch, the same codes and samples; windows; what decides the waveform."""

import dataclasses
import shutil
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.layers.windows import context_windows
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import ReasoningCodecConfig
from codec.reasoning.structural_branch import FEATURE_FRAMES
from codec.tokenizer import AudioTokenizer
from tests.factories.codec import SMALL, noise, small_codec
from tests.factories.tokens import descriptive_frames, structural_frames

LENGTHS = [480, 1, 24_000, 9_600, 4_800, 1_920, 31_337, 9_599]  # from 0.02 s, and both sides of frame borders


@pytest.fixture(scope="module")
def codec():
    return small_codec()


def batch_of(lengths):
    waveforms = torch.full((len(lengths), max(lengths)), 0.7)  # what lies beyond a clip must not matter
    for row, n in enumerate(lengths):
        waveforms[row, :n] = noise(n, seed=row)
    return waveforms, torch.tensor(lengths)


def test_a_clip_has_the_same_codes_alone_in_a_batch_and_twice(codec):
    waveforms, lengths = batch_of(LENGTHS)
    together = codec.encode(waveforms, lengths)
    again = codec.encode(waveforms, lengths)
    for row, n in enumerate(LENGTHS):
        assert together[row].num_samples == n
        assert together[row]["descriptive"].shape == (8, descriptive_frames(n))
        assert together[row]["structural"].shape == (8, structural_frames(n))
        assert together[row].equal(again[row])
        assert together[row].equal(codec.encode(waveforms[row : row + 1, :n])[0])
    assert len({tuple(t["structural"][0].tolist()) for t in together}) == len(LENGTHS)  # the audio decides the codes


def test_a_clip_is_the_same_waveform_alone_and_in_a_batch(codec):
    waveforms, lengths = batch_of(LENGTHS)
    tokens = codec.encode(waveforms, lengths)
    seeds = list(range(len(LENGTHS)))
    together = codec.decode(tokens, steps=3, seed=seeds)
    for row, n in enumerate(LENGTHS):
        assert together[row].shape == (n,)
        alone = codec.decode([tokens[row]], steps=3, seed=seeds[row])[0]
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-4)
    other = codec.decode([tokens[2]], steps=3, seed=99)[0]
    assert (other - together[2]).abs().max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 100_000))
def test_a_round_trip_keeps_its_length_to_the_sample(n):
    codec = small_codec()
    tokens = codec.encode(noise(n)[None])[0]
    assert codec.decode([tokens], steps=1)[0].shape == (n,)


def test_the_waveform_depends_on_the_structural_ids_alone(codec):
    tokens = codec.encode(noise(20_000)[None])[0]
    other = dataclasses.replace(tokens, streams={**tokens.streams, "descriptive": (tokens["descriptive"] + 1) % 64})
    assert torch.equal(*[codec.decode([t], steps=2)[0] for t in (tokens, other)])
    other = dataclasses.replace(tokens, streams={**tokens.streams, "structural": (tokens["structural"] + 1) % 64})
    assert not torch.allclose(*[codec.decode([t], steps=2)[0] for t in (tokens, other)])


def test_descriptive_tokens_modulate_the_structural_codes():
    codec, audio = small_codec(), noise(48_000)[None]
    before = codec.encode(audio)[0]["structural"]
    with torch.no_grad():
        for film in codec.structural.film.values():
            film.linear.weight.zero_()
    assert not torch.equal(codec.encode(audio)[0]["structural"], before)


def test_long_audio_is_encoded_in_windows_that_meet():
    """With windows far shorter than the clip, every frame is there once, and away from the borders it is what a single
    window says (the mel features of the phone expert look at nothing beyond the frame)."""
    whole = small_codec(dataclasses.replace(SMALL, encode_window_blocks=60))
    cut = small_codec(dataclasses.replace(SMALL, encode_window_blocks=10, batch_blocks=20))
    audio = noise(int(24_000 * 17.3))[None]
    for codec in (whole, cut):  # without attention and FiLM over the whole window, codes are local
        with torch.no_grad():
            for film in codec.structural.film.values():
                film.linear.weight.zero_()
    a, b = whole.encode(audio)[0], cut.encode(audio)[0]
    assert a["structural"].shape == b["structural"].shape and a["descriptive"].shape == b["descriptive"].shape
    assert torch.equal(a["structural"][0], b["structural"][0])


def test_long_audio_in_a_batch_is_the_long_audio_alone(codec):
    lengths = [24_000 * 25 + 7, 5_000, 24_000 * 13]
    waveforms, n = batch_of(lengths)
    together = codec.encode(waveforms, n)
    decoded = codec.decode(together, steps=1)
    for row, length in enumerate(lengths):
        assert codec.encode(waveforms[row : row + 1, :length])[0].equal(together[row])
        alone = codec.decode([together[row]], steps=1)[0]
        assert decoded[row].shape == (length,)
        torch.testing.assert_close(alone, decoded[row], atol=1e-5, rtol=1e-4)


def test_progress_adds_up_to_the_samples_and_is_told_window_by_window(codec):
    lengths, told = [700_001, 1, 9_600, 288_000], []
    audio = torch.zeros(4, 700_001)
    codec.encode(audio, torch.tensor(lengths), progress=told.append)
    windows = [len(context_windows(n // 9_600 + 1, 30, 3)) for n in lengths]
    assert len(told) == sum(windows) and sum(told) == sum(lengths) and min(told) >= 0


@pytest.mark.parametrize("n", [1, 9_600, 30 * 9_600 - 1, 30 * 9_600, 24_000 * 25 + 7])
def test_blocks_of_any_size_encode_as_the_whole(codec, n):
    whole = codec.encode(noise(n)[None])[0]
    for size in (4_001, 100_000, n):
        told = []
        made = codec.encode_blocks(noise(n).split(size), n, told.append)
        assert made.equal(whole) and sum(told) == n
    assert AudioTokenizer.encode_blocks(codec, noise(n).split(100_000), n).equal(whole)  # of tokenizers in general


def test_blocks_that_are_not_what_was_said(codec):
    blocks = noise(300_000).split(50_000)
    for encode in (codec.encode_blocks, partial(AudioTokenizer.encode_blocks, codec)):
        with pytest.raises(UserError, match="ended after 300000 samples"):
            encode(blocks, 300_001)
        with pytest.raises(ValueError, match="more than the 250000"):
            encode(blocks, 250_000)
        with pytest.raises(UserError, match="NaN"):
            encode([*blocks[:-1], blocks[-1] * float("nan")], 300_000)
        with pytest.raises(UserError, match="no samples|empty"):
            encode([], 0)


@pytest.mark.parametrize("edge", [9_600, 30 * 9_600])
def test_a_clip_that_ends_on_a_block_edge_has_one_block_more_which_is_silent(codec, edge):
    """As docs/published.md says: frames as published, silence beyond the end, two windows for exactly one window."""
    for n in (edge - 1, edge, edge + 1):
        blocks = edge // 9_600 + (n >= edge)
        features = codec.extract_features(noise(n)[None], torch.tensor([n]))
        assert features.frames.tolist() == [n // 960 + 1] and features.structural_mask.shape[1] == 5 * blocks
        assert features.structural_mask.sum() == structural_frames(n)
        for name, values in features.values.items():
            heard = (n // 960 + 1) * FEATURE_FRAMES[name] // 2
            assert values[0, :, : heard - 4].abs().amax(0).gt(0).all()
            assert not values[0, :, heard:].any() and values.shape[2] == blocks * 5 * FEATURE_FRAMES[name]
        windows = context_windows(n // 9_600 + 1, 30, 3)
        assert len(windows) == (2 if blocks > 30 else 1) and windows[-1].keep_stop == blocks


def test_decoding_is_deterministic_and_has_settings(codec):
    tokens = codec.encode(noise(12_000)[None])
    assert torch.equal(codec.decode(tokens, steps=4)[0], codec.decode(tokens, steps=4)[0])
    euler = codec.decode(tokens, steps=4)[0]
    for change in ({"steps": 9}, {"guidance": 3.0}):
        assert not torch.equal(codec.decode(tokens, **{"steps": 4, **change})[0], euler)
    assert codec.decode([]) == []
    with pytest.raises(ValueError, match="2 seeds for 1 clips"):
        codec.decode(tokens, seed=[1, 2])


def test_tokens_without_a_known_length_decode(codec):
    frames = torch.randint(0, 64, (8, 20))
    tokens = codec.from_frames({"descriptive": frames[:, :3], "structural": frames})
    assert codec.decode([tokens], steps=1)[0].shape == (tokens.num_samples,)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (torch.zeros(1, 0), "clip 0 of the batch is empty"),
        (torch.tensor([[0.0, float("nan"), 0.0]]), "clip 0 of the batch holds NaN"),
        (torch.tensor([[0.0, float("inf"), 0.0]]), "clip 0 of the batch holds NaN or infinite"),
        (torch.zeros(3), "must be a float tensor"),
        (torch.zeros(1, 8, 100), "must be a float tensor"),
        (torch.zeros(1, 100, dtype=torch.int16), "int16"),
    ],
)
def test_bad_audio_is_one_clear_sentence(codec, audio, message):
    with pytest.raises(UserError, match=message):
        codec.encode(audio)


def test_bad_lengths_and_foreign_tokens_are_refused(codec):
    with pytest.raises(ValueError, match="do not fit"):
        codec.encode(torch.zeros(1, 100), torch.tensor([101]))
    tokens = codec.encode(noise(5_000)[None])[0]
    with pytest.raises(UserError, match=f"made by tokenizer 0123, but this one is {codec.fingerprint}"):
        codec.decode([dataclasses.replace(tokens, fingerprint="0123")])
    with pytest.raises(UserError, match="holds the structural id .*, and the tokenizer has 0 to 63"):
        codec.decode([dataclasses.replace(tokens, streams={**tokens.streams, "structural": tokens["structural"] + 64})])


def test_training_mode_neither_encodes_nor_decodes():
    codec = small_codec()
    tokens = codec.encode(noise(5_000)[None])
    codec.train()
    for call in (lambda: codec.encode(noise(5_000)[None]), lambda: codec.decode(tokens)):
        with pytest.raises(RuntimeError, match="call eval"):
            call()


def test_encoding_changes_nothing(codec):
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    codec.decode(codec.encode(noise(30_000)[None]), steps=1)
    assert all(torch.equal(value, before[name]) for name, value in codec.state_dict().items())


def test_a_saved_codec_holds_its_music_encoder(tmp_path):
    """Whatever becomes of the folder it was read from, and with a fingerprint that knows nothing of that folder."""
    sizes = MusicEncoderConfig(dim=24, heads=2, feed_forward=32, layers=3, kernel=5, channels=4, mel_bands=16)
    torch.manual_seed(0)
    MusicEncoder(sizes).save_pretrained(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    codecs = []
    for place in ("here", "there"):
        taps = {"music_acoustic": (1,), "music_semantic": (3,)}
        music = ExpertConfig("music", "conformer", str(tmp_path / place), taps)
        config = dataclasses.replace(
            SMALL,
            experts=(ExpertConfig("speech_text"), ExpertConfig("phone"), music),
            descriptive=dataclasses.replace(SMALL.descriptive, music_dim=24),
        )
        codecs.append(small_codec(config))
    assert codecs[0].fingerprint == codecs[1].fingerprint
    codecs[0].save_pretrained(tmp_path / "codec")
    shutil.rmtree(tmp_path / "here")
    again = ReasoningCodec.from_pretrained(tmp_path / "codec")
    assert again.config == codecs[0].config and again.fingerprint == codecs[0].fingerprint
    audio = noise(20_000)[None]
    assert again.encode(audio)[0].equal(codecs[0].encode(audio)[0])


def test_a_configuration_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="one expert for each"):
        ReasoningCodecConfig(experts=(ExpertConfig("phone"), ExpertConfig("music")))
    sizes = dataclasses.replace(SMALL.descriptive, speech_dim=64)
    with pytest.raises(UserError, match="the experts give"):
        ReasoningCodec(dataclasses.replace(SMALL, descriptive=sizes))


def test_decoding_in_bfloat16_is_near_and_leaves_ids_and_fingerprint():
    codec, plain = small_codec(), small_codec()
    tokens = plain.encode(noise(40_000)[None])
    assert codec.set_decoder_dtype(torch.bfloat16) is codec and codec.fingerprint == plain.fingerprint
    assert codec.encode(noise(40_000)[None])[0].equal(tokens[0])
    near, exact = (c.decoder.latents([tokens[0]["structural"]], [40_000], [0], 4, 1.5) for c in (codec, plain))
    assert near.dtype == torch.float32 and not torch.equal(near, exact)
    assert (near - exact).abs().mean() < 0.02 * exact.std()
    (waveform,) = codec.decode(tokens, steps=4)
    assert waveform.dtype == torch.float32 and waveform.shape == (40_000,)
    assert all(torch.equal(one, two) for one, two in zip(codec.parameters(), plain.parameters(), strict=True))
    stream = codec.stream(steps=4)
    pieces = [stream.feed(tokens[0]["structural"]), stream.finish(40_000)]
    torch.testing.assert_close(torch.cat(pieces), waveform, atol=1e-4, rtol=0)


def test_decoding_in_another_type_follows_the_weights():
    """Trained further, or back in their own type: what is decoded is of the weights as they are."""
    codec, plain = small_codec().set_decoder_dtype(torch.bfloat16), small_codec()
    ids = [plain.encode(noise(20_000)[None])[0]["structural"]]

    def latents(codec):
        return codec.decoder.latents(ids, [20_000], [0], 2, 1.0)

    before = latents(codec)
    with torch.no_grad():
        for one in (codec, plain):
            for weight in one.flow.estimator.parameters():
                weight.mul_(1.5)
    fresh = small_codec().set_decoder_dtype(torch.bfloat16)
    fresh.load_state_dict(plain.state_dict())
    assert torch.equal(latents(codec), latents(fresh)) and not torch.equal(latents(codec), before)
    assert torch.equal(latents(codec.set_decoder_dtype(None)), latents(plain))
