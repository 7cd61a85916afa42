"""ALMTokenizer: windows and rates of one model, what queries and mask tokens do, long sound, cost, training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from auditory_sentences.lengths import Units
from codec.almtokenizer.codec import STREAM, ALMTokenizer
from codec.almtokenizer.config import ALMTokenizerConfig
from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from codec.tokens import AudioTokens
from tests.factories.codec import noise
from tests.factories.one_stream.almtokenizer import MEAN_POOLED, ON_SAMPLES, SMALL, small_almtokenizer

KINDS = {"queries": SMALL, "on samples": ON_SAMPLES, "mean pooled": MEAN_POOLED}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return small_almtokenizer(KINDS[request.param])


def test_windows_are_rates_of_the_same_weights(tokenizer, tmp_path):
    wave, own = noise(24_000), tokenizer.fingerprint
    prints = set()
    for window in range(2, 11):
        at = tokenizer.with_window(window)
        made = at.encode(wave[None])[0]
        assert at.streams[0].rate == 75 / window and made[STREAM].shape == (3, -(-75 // window))
        assert at.decode([made])[0].shape == (24_000,)
        assert at.encoder is tokenizer.encoder and at.mask_token is tokenizer.mask_token
        prints.add(at.fingerprint)
        at.save_pretrained(tmp_path / str(window))
        again = load_tokenizer(tmp_path / str(window))
        assert again.encode(wave[None])[0].equal(made) and again.with_window(6).fingerprint == own
        if window != 6:
            with pytest.raises(UserError, match="decode them with the tokenizer that made them"):
                tokenizer.decode([made])
    assert len(prints) == 9 and tokenizer.streams[0].rate == 12.5 and tokenizer.fingerprint == own
    for window in (1, 11):
        with pytest.raises(UserError, match="choose 2 to 10"):
            tokenizer.with_window(window)


def test_windows_of_long_sound_are_the_whole(tokenizer):
    """Exactly: a window is given all that its queries depend on."""
    wave = noise(120_000)
    for window in (2, 7):
        whole, windows = (
            small_almtokenizer(replace(tokenizer.config, pass_patches=size)).with_window(window) for size in (1000, 40)
        )
        assert len(whole._windows(120_000)) == 1 and len(windows._windows(120_000)) > 5
        made = windows.encode(wave[None])[0][STREAM]
        assert torch.equal(whole.encode(wave[None])[0][STREAM], made)


@pytest.mark.parametrize("window", range(2, 11))
def test_frames_are_counted_and_cropped_exactly_at_every_rate(window):
    """75 / 7 frames a second too: what a stream says of its lengths, in an hour, is what encoding makes."""
    at = small_almtokenizer().with_window(window)
    hop, units = at.samples_per_frame, Units(at.streams, at.sample_rate)
    for frames in (1, 20, 24_000 * 3600 // hop):
        assert at.num_frames(STREAM, frames * hop) == frames and at.num_frames(STREAM, frames * hop + 1) == frames + 1
        assert at.least_samples(STREAM, frames) == (frames - 1) * hop + 1
    tokens = at.encode(noise(20 * hop)[None])[0]
    crop = units.crop(tokens, 5, 8)
    at.require_own(crop)
    assert torch.equal(crop[STREAM], tokens[STREAM][:, 5:13])


@pytest.mark.parametrize("window", [2, 7])
def test_queries_depend_on_the_context_and_on_no_more(tokenizer, window):
    at = tokenizer.with_window(window)
    context, hop = at.encode_window[1], at.samples_per_frame
    wave = noise((2 * context + 9) * hop)[None].requires_grad_()
    at.queries_of(at.patchify(wave))[0, context + 4, 0].backward()
    touched = (wave.grad[0].nonzero()[:, 0] // hop).tolist()
    assert 4 <= touched[0] <= 4 + 5 and touched[-1] <= 2 * context + 4


def test_longer_windows_are_read_by_fewer_positions(monkeypatch):
    """The cost of encoding: transformer positions for a second of sound fall with the window."""
    tokenizer, seen = small_almtokenizer(), []
    monkeypatch.setattr(
        tokenizer.encoder, "forward", lambda x, times, mask: (seen.append(x.shape[1]), torch.zeros_like(x))[1]
    )
    for window in (2, 5, 10):
        tokenizer.with_window(window).encode(torch.zeros(1, 32_000))
    assert seen == [150, 120, 110]


def test_memory_does_not_grow_with_the_clip(monkeypatch):
    """What the network is given at once has a bound, for a clip of any length; the sound arrives in blocks."""
    tokenizer, seen = small_almtokenizer(), []
    made = tokenizer.encode_ids
    monkeypatch.setattr(tokenizer, "encode_ids", lambda audio: (seen.append(audio.shape[1]), made(audio))[1])
    tokenizer.encode_blocks((torch.zeros(24_000) for _ in range(60)), 60 * 24_000)
    window, context = tokenizer.encode_window
    assert len(seen) > 100 and max(seen) == window * tokenizer.samples_per_frame
    assert window - 2 * context == SMALL.pass_patches // SMALL.window


def test_a_query_stands_behind_its_patches_and_gathers_them():
    tokenizer = small_almtokenizer().with_window(3)
    seen = {}
    tokenizer.encoder.register_forward_pre_hook(lambda _, given: seen.update(x=given[0], times=given[1]))
    patches = torch.randn(1, 6, 32)
    queries = tokenizer.queries_of(patches)
    assert seen["times"].tolist() == [0, 1, 2, 2.5, 3, 4, 5, 5.5] and queries.shape == (1, 2, 32)
    assert torch.equal(seen["x"][0, [0, 1, 2, 4, 5, 6]], patches[0])
    assert torch.equal(seen["x"][0, 3], tokenizer.query) and torch.equal(seen["x"][0, 7], tokenizer.query)


def test_mask_tokens_stand_behind_their_query_and_are_filled_in():
    tokenizer = small_almtokenizer().with_window(4)
    seen = {}
    tokenizer.decoder.register_forward_pre_hook(lambda _, given: seen.update(x=given[0], times=given[1]))
    quantised = torch.randn(1, 2, 32)
    states = tokenizer.states_of(quantised)
    assert seen["times"].tolist() == [-0.5, 0, 1, 2, 3, 3.5, 4, 5, 6, 7] and states.shape == (1, 8, 32)
    assert torch.equal(seen["x"][0, [0, 5]], quantised[0])
    assert all(torch.equal(seen["x"][0, place], tokenizer.mask_token) for place in (1, 2, 3, 4, 6, 7, 8, 9))
    assert (states[0, 0] - states[0, 1]).abs().max() > 1e-3  # equal tokens at different places


def test_padding_changes_nothing_in_training(tokenizer):
    wave, hop = noise(5 * tokenizer.samples_per_frame), tokenizer.samples_per_frame
    patches = tokenizer.patchify(torch.nn.functional.pad(wave, (0, 3 * hop))[None])
    mask = torch.arange(8)[None] < 5
    longer = tokenizer.queries_of(patches, mask.repeat_interleave(6, dim=1))
    alone = tokenizer.queries_of(patches[:, :30])
    torch.testing.assert_close(longer[:, :5], alone)
    torch.testing.assert_close(tokenizer.states_of(longer, mask)[:, :30], tokenizer.states_of(alone), atol=1e-5, rtol=0)


def test_gradients_reach_every_weight(tokenizer):
    fresh = small_almtokenizer(tokenizer.config).train()
    patches = fresh.patchify(noise(6_400 * 3)[None])
    quantised, ids, losses = fresh.quantiser(fresh.queries_of(patches))
    wave = fresh.unpatchify(fresh.states_of(quantised))
    assert wave.shape == (1, 19_200) and ids.shape == (1, 10, 3)
    (wave.square().mean() + losses.sum()).backward()
    for name, parameter in fresh.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


def test_the_fingerprint_knows_weights_and_what_changes_ids(tokenizer):
    config = tokenizer.config
    assert small_almtokenizer(config).fingerprint == tokenizer.fingerprint
    assert small_almtokenizer(replace(config, batch_patches=77)).fingerprint == tokenizer.fingerprint
    assert small_almtokenizer(replace(config, decay=0.9)).fingerprint != tokenizer.fingerprint
    assert small_almtokenizer(config, seed=1).fingerprint != tokenizer.fingerprint
    assert ALMTokenizer.identity_values(tokenizer).keys().isdisjoint({"batch_patches"})


def test_without_codes_it_loads_and_refuses_to_encode(tmp_path):
    ALMTokenizer(SMALL).eval().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="codebooks are not initialised"):
        load_tokenizer(tmp_path).encode(noise(2_000)[None])
    random = ALMTokenizer(replace(SMALL, kmeans_init=False)).eval()  # what evaluation compares a trained one with
    assert random.decode(random.encode(noise(2_000)[None]))[0].isfinite().all()


def test_ids_of_another_stream_and_tokens_of_another_tokenizer(tokenizer):
    with pytest.raises(KeyError):
        tokenizer.dequantise("codes", torch.zeros(1, 1, 3, dtype=torch.int64))
    with pytest.raises(UserError):
        tokenizer.decode([AudioTokens({STREAM: torch.zeros(3, 1, dtype=torch.int64)}, 1920, "another")])


def test_frames_dequantise_to_what_was_quantised(tokenizer):
    queries = tokenizer.queries_of(tokenizer.patchify(noise(9_600)[None]))
    quantised, ids, _ = tokenizer.quantiser(queries)
    torch.testing.assert_close(tokenizer.dequantise(STREAM, ids), quantised.detach())


def test_the_published_sizes_and_card():
    with torch.device("meta"):
        tokenizer = ALMTokenizer(ALMTokenizerConfig())
    spec = tokenizer.streams[0]
    assert (spec.rate, spec.codebooks, spec.codes, tokenizer.sample_rate) == (12.5, 3, 2048, 24_000)
    assert tokenizer.identity_values() == {}
    assert "412 bit/s" in tokenizer.card_facts()["tokens"] and "7.5 to 37.5" in str(tokenizer.card_facts())
