"""Codecs under test: what --codec may say, their bit rates, and that none is late."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.io.errors import UserError
from evaluation.codecs.base import to_24_khz
from evaluation.codecs.codec2 import MODES
from evaluation.codecs.open import open_codec, open_codecs, short_name
from evaluation.codecs.opus import packet_sizes
from evaluation.codecs.own import bits_per_second
from tests.evaluation.codecs.rivals import write_dac, write_encodec, write_mimi
from tests.factories.one_stream.almtokenizer import small_almtokenizer
from tests.factories.one_stream.xcodec import small_xcodec

STARTER = "starter/codec"


def vowels(seconds=2.0, rate=24_000):
    """A voice of pulses through two formants, in syllables: what vocoders are made for."""
    t = np.arange(int(seconds * rate)) / rate
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(
        np.cos(k * phase) * sum(1 / (1 + ((k * 120 - f) / 90) ** 2) for f in (600, 1200, 2500)) for k in range(1, 28)
    )
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t + np.sin(2 * np.pi * 0.9 * t)), 0, 1) ** 0.7
    return (0.2 * voice * syllables / np.abs(voice).max()).astype(np.float32)


def lag_of(made, original, smooth=0):
    """Samples by which one is later than the other: where they correlate most; their envelopes, with `smooth`."""
    if smooth:
        window = np.hanning(smooth)
        made, original = (np.sqrt(np.convolve(x**2, window, "same") + 1e-12) for x in (made, original))
    made, original = made - made.mean(), original - original.mean()
    size = 2 * len(made)
    spectrum = np.fft.rfft(made, size) * np.fft.rfft(original, size).conj()
    place = int(np.fft.irfft(spectrum, size).argmax())
    return place - size if place > size // 2 else place


@pytest.mark.parametrize("kbps", [6, 8, 12])
def test_opus_is_aligned_and_its_bits_are_counted(kbps):
    wave = vowels() + 0.005 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    codec = open_codec(f"opus@{kbps}")
    (made,) = codec.reconstruct([wave])
    assert made.waveform.shape == wave.shape and abs(lag_of(made.waveform, wave)) <= 2
    assert made.bits / 2.0 == pytest.approx(1000 * kbps, rel=0.25)
    assert codec.bits_per_second is None and codec.tokenizer is None and f"{kbps} kb/s" in codec.fingerprint
    assert np.abs(made.waveform).max() > 0.05


def test_packets_of_an_ogg_stream():
    page = b"OggS" + bytes(22) + bytes([4, 255, 10, 3, 255]) + bytes(523)
    assert list(packet_sizes(page + b"OggS" + bytes(22) + bytes([1, 7]) + bytes(7))) == [265, 3, 262]


@pytest.mark.parametrize("kbps", MODES)
def test_codec2_is_aligned(kbps):
    pytest.importorskip("pycodec2", reason="the extra 'rivals' is not installed")
    wave = vowels()
    codec = open_codec(f"codec2@{kbps}")
    (made,) = codec.reconstruct([wave])
    assert codec.bits_per_second == 1000 * kbps and made.bits is None and made.waveform.shape == wave.shape
    assert abs(lag_of(made.waveform, wave, smooth=960)) <= 120, "within 5 ms: a vocoder makes its own phases"
    again = codec.reconstruct([wave])[0].waveform  # the same but for the noise that the library draws, without a seed
    assert abs(lag_of(again, made.waveform, smooth=960)) <= 24


@pytest.mark.parametrize(
    ("write", "asked", "codebooks", "bits"),
    [
        (write_dac, "", 3, 3 * 500 * 4), (write_dac, "@4", 2, 4000), (write_encodec, "", 4, 3000),
        (write_encodec, "@1.5", 2, 1500), (write_mimi, "", 4, 250), (write_mimi, "@0.125", 2, 125),
    ],
)  # fmt: skip
def test_codecs_of_transformers(tmp_path, write, asked, codebooks, bits):
    folder = write(tmp_path / "rival")
    codec = open_codec(f"{folder}{asked}")
    assert codec.codebooks == codebooks and codec.bits_per_second == pytest.approx(bits)
    assert codec.tokenizer is None and codec.parameters > 0
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(n).astype(np.float32) for n in (24_000, 10_001)]
    made = codec.reconstruct(clips)
    assert [m.waveform.shape for m in made] == [(24_000,), (10_001,)]
    assert all(np.isfinite(m.waveform).all() and m.waveform.dtype == np.float32 for m in made)
    assert np.array_equal(codec.reconstruct(clips[1:])[0].waveform, made[1].waveform)
    assert open_codec(f"{folder}{asked}").fingerprint == codec.fingerprint


def test_the_adapter_gives_what_the_library_gives(tmp_path):
    codec = open_codec(write_encodec(tmp_path / "rival"))
    wave = torch.from_numpy(vowels(0.5))
    with torch.inference_mode():
        expected = codec.model(wave[None, None], bandwidth=3.0).audio_values[0, 0]
    assert np.allclose(codec.reconstruct([wave.numpy()])[0].waveform, expected[: len(wave)], atol=1e-6)


def test_stereo_models_hear_the_clip_on_both_channels(tmp_path):
    codec = open_codec(write_encodec(tmp_path / "rival", channels=2))
    assert codec.reconstruct([vowels(0.5)])[0].waveform.shape == (12_000,)


def test_other_weights_or_bit_rates_have_another_fingerprint(tmp_path):
    folder = write_mimi(tmp_path / "rival")
    whole, half = open_codec(folder), open_codec(f"{folder}@0.125")
    assert whole.fingerprint != half.fingerprint
    with torch.no_grad():
        next(whole.model.parameters()).add_(0.1)
    whole.model.save_pretrained(tmp_path / "other")
    assert open_codec(tmp_path / "other").fingerprint not in (whole.fingerprint, half.fingerprint)


def test_our_own_tokenizers():
    codec = open_codec(STARTER)
    assert codec.tokenizer is not None and codec.fingerprint == codec.tokenizer.fingerprint
    expected = sum(s.rate * s.codebooks * math.log2(s.codes) for s in codec.tokenizer.streams)
    assert codec.bits_per_second == expected
    wave = vowels(1.0)
    (made,) = codec.reconstruct([wave])
    assert made.waveform.shape == wave.shape and np.isfinite(made.waveform).all()


def test_names_differ():
    assert short_name("a/b/c") == "b/c" and short_name("opus@6") == "opus@6" and short_name(Path("/c")) == "c"
    assert [codec.name for codec in open_codecs(["opus@6", "opus@8"])] == ["opus@6", "opus@8"]
    with pytest.raises(UserError, match="names 'opus@6' twice"):
        open_codecs(["opus@6", "opus@6"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("opus", "give its bit rate"), ("opus@5", "from 6 to 256"), ("opus@6.5", "whole number"),
        ("codec2@1", r"its modes are codec2@0\.7"), ("opus@six", "a bit rate in kb/s"), ("opus@0", "above 0"),
        ("opus@nan", "a bit rate in kb/s"), ("nowhere", "no such folder"), (f"{STARTER}@3", "leave @3 out"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text, said):
    pytest.importorskip("pycodec2", reason="the extra 'rivals' is not installed")
    with pytest.raises(UserError, match=said):
        open_codec(text)


@pytest.mark.parametrize(("make", "saved"), [(small_xcodec, "codebooks_used"), (small_almtokenizer, "window")])
def test_each_bit_rate_of_our_own_codecs(tmp_path, make, saved):
    """Of a codec of several rates each is asked for by its kb/s, and is the same weights."""
    make().save_pretrained(tmp_path)
    whole = open_codec(tmp_path)
    found = {}
    for other in whole.tokenizer.at_each_rate():
        kbps = bits_per_second(other) / 1000
        codec = open_codec(f"{tmp_path}@{kbps:.4g}")
        found[getattr(codec.tokenizer.config, saved)] = codec.bits_per_second
        assert codec.bits_per_second == bits_per_second(other) and codec.fingerprint == other.fingerprint
    assert len(set(found.values())) == len(found) > 1 and whole.bits_per_second in found.values()
    lowest = min(found.values()) / 1000
    with pytest.raises(UserError, match=f"this codec has {lowest:.3g}, .* kb/s; ask for one of them"):
        open_codec(f"{tmp_path}@{lowest / 2:.4g}")


@pytest.mark.parametrize("asked", ["@9", "@0.1", "@2.5"])
def test_bit_rates_that_a_codec_lacks(tmp_path, asked):
    with pytest.raises(UserError, match="3 codebooks of 2 kb/s each"):
        open_codec(f"{write_dac(tmp_path / 'rival')}{asked}")


def test_silence_stands_for_what_was_not_given():
    assert to_24_khz(np.ones(3, np.float32), 24_000, 5, delay=1).tolist() == [1, 1, 0, 0, 0]


def test_a_model_is_no_codec_and_has_one(tmp_path):
    (tmp_path / "model" / "audio_tokenizer").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "uniaudio"}')
    with pytest.raises(UserError, match=r"is a model, not a codec; its codec is .*audio_tokenizer"):
        open_codec(tmp_path / "model")
