"""Sound files: what comes in is right, in blocks or whole, and every bad file is one clear sentence."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.audio.waveform import (
    as_waveform,
    at_rate,
    audio_length,
    iterate_audio,
    load_audio,
    wav_pieces,
    write_audio,
)
from codec.io.errors import UserError


def tone(rate, seconds=1.0, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 11_127])
def test_every_rate_becomes_the_same_tone_at_24_khz(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", 0.5 * tone(rate), rate, subtype="FLOAT")
    wave = load_audio(tmp_path / "a.wav")
    assert wave.dtype == torch.float32 and wave.shape == (audio_length(tmp_path / "a.wav"),)
    assert abs(len(wave) - 24_000) <= 7  # an odd rate is taken as one a cent away
    middle = slice(2_000, -2_000)
    expected = torch.from_numpy(0.5 * tone(24_000))[: len(wave)]
    tolerance = 1e-4 if rate != 11_127 else 0.5
    assert (wave[: len(expected)] - expected)[middle].abs().max() < tolerance


def test_downsampling_removes_what_24_khz_cannot_hold(tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.9 * tone(48_000, frequency=14_000), 48_000, subtype="FLOAT")
    assert load_audio(tmp_path / "a.wav")[2_000:-2_000].abs().max() < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([8_000, 22_050, 24_000, 44_100, 48_000]),
    frames=st.integers(1, 60_000),
    block=st.floats(0.01, 1.0),
    channels=st.sampled_from([1, 2, 8]),
)
def test_blocks_joined_are_the_whole(tmp_path_factory, rate, frames, block, channels):
    path = tmp_path_factory.mktemp("blocks") / "a.wav"
    noise = np.random.default_rng(frames).uniform(-1, 1, (frames, channels)).astype(np.float32)
    soundfile.write(path, noise, rate, subtype="FLOAT")
    whole, blocks = load_audio(path), list(iterate_audio(path, block))
    assert len(whole) == audio_length(path) == sum(map(len, blocks))
    assert max(map(len, blocks)) <= block * 24_000 + 1_000
    torch.testing.assert_close(torch.cat(blocks), whole, rtol=0, atol=2e-6)


def test_eight_channels_are_averaged(tmp_path):
    channels = np.arange(8, dtype=np.float32)[None].repeat(1000, 0) / 10
    soundfile.write(tmp_path / "a.wav", channels, 24_000, subtype="FLOAT")
    torch.testing.assert_close(load_audio(tmp_path / "a.wav"), torch.full((1000,), 0.35))


def test_a_hundredth_of_a_second(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(8_000, 0.01), 8_000)
    assert load_audio(tmp_path / "a.wav").shape == (240,)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_formats(tmp_path, ending):
    soundfile.write(tmp_path / f"a.{ending}", 0.5 * tone(24_000, 2.0), 24_000)
    wave = load_audio(tmp_path / f"a.{ending}")
    assert abs(len(wave) - 48_000) < 3_000  # mp3 pads
    spectrum = torch.fft.rfft(wave[10_000:34_000]).abs()
    assert spectrum.argmax() == 440


@pytest.mark.slow
def test_two_hours_pass_in_blocks_without_filling_memory(tmp_path):
    """A two-hour file in a process that may hold 1 GB beside its libraries."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, subtype="PCM_16") as file:
        for _ in range(120):
            file.write(np.zeros(960_000, np.int16))
    program = f"""
import resource, torch
from codec.audio.waveform import as_waveform, audio_length, iterate_audio
torch.set_num_threads(1)
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
total = sum(len(block) for block in iterate_audio({str(path)!r}))
assert total == audio_length({str(path)!r}) == 7200 * 24000, total
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- arrays ------------------------------------------------------------------------------------------------------


def test_arrays_of_integers_are_scaled_as_in_a_file(tmp_path):
    floats = torch.arange(-32_768, 32_768, 7) / 32_768
    sixteen = (floats * 32_768).to(torch.int16)
    for same in (sixteen, sixteen.numpy(), sixteen.numpy().astype(">i2"), sixteen.int() * 65_536, floats.double()):
        assert torch.equal(as_waveform(same), floats) and as_waveform(same).dtype == torch.float32
    assert torch.equal(as_waveform(floats.numpy()[::-1]), floats.flip(0))
    eight = np.arange(256, dtype=np.uint8)
    soundfile.write(tmp_path / "a.wav", ((eight.astype(np.int32) - 128) * 2**24), 24_000, subtype="PCM_U8")
    assert torch.equal(as_waveform(eight), load_audio(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (torch.zeros(2, 10), ValueError, "mono"),
        (np.zeros(()), ValueError, "mono"),
        (torch.zeros(10, dtype=torch.int64), ValueError, "int64"),
        (np.zeros(10, np.int8), ValueError, "int8"),
        (np.zeros(10, bool), ValueError, "bool"),
        (np.zeros(10, np.complex64), ValueError, "complex64"),
        (np.array(["a"]), ValueError, "U1"),
        (np.array([None]), ValueError, "object"),
        (np.array([0.0, np.nan]), UserError, "NaN"),
        (8_000 * torch.sin(torch.arange(99.0)), UserError, "divide"),
    ],
)
def test_arrays_that_are_no_waveform(samples, error, message):
    with pytest.raises(error, match=message):
        as_waveform(samples)


def test_a_wav_file_written_to_a_pipe_has_no_length_and_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(24_000), 24_000)
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert load_audio(path).shape == (24_000,)


# ---- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["wav", "flac", "FLAC"])
def test_written_and_read_back(tmp_path, ending):
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, 5_001).astype(np.float32))
    path = tmp_path / f"a.{ending}"
    assert write_audio(path, wave) == 1.0
    assert (load_audio(path) - wave).abs().max() <= 1 / 32768
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert os.listdir(tmp_path) == [path.name]


def test_loud_sound_is_made_quieter_not_clipped(tmp_path):
    wave = 3 * tone(24_000)
    with pytest.warns(UserWarning, match="9.5 dB quieter"):
        gain = write_audio(tmp_path / "a.wav", wave)
    assert gain == pytest.approx(1 / 3, rel=1e-6)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), wave / 3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "wave", "fault"),
    [
        ("a.mp3", tone(24_000), "written as .wav or .flac"),
        ("a.wav/b.wav", tone(24_000), "not a folder"),
        ("a.wav", tone(24_000), "exists already"),
        ("a.wav", np.zeros(0), "no sample"),
        ("a.wav", np.array([0.0, np.nan]), "NaN"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, name, wave, fault):
    write_audio(tmp_path / "a.wav", 0.1 * tone(24_000))
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(UserError, match=fault):
        write_audio(tmp_path / name, wave)
    assert (tmp_path / "a.wav").read_bytes() == before and os.listdir(tmp_path) == ["a.wav"]


def test_a_file_is_replaced_only_by_force_and_never_where_it_is_an_input(tmp_path):
    path, link = tmp_path / "a.wav", tmp_path / "b.wav"
    write_audio(path, 0.1 * tone(24_000))
    before = path.read_bytes()
    link.symlink_to(path)
    with pytest.raises(UserError, match="is what is read"):
        write_audio(link, 0.2 * tone(24_000), force=True, inputs=[path])
    assert path.read_bytes() == before
    write_audio(path, 0.2 * tone(24_000), force=True)
    assert path.read_bytes() != before
    write_audio(tmp_path / "new" / "a.wav", tone(24_000))


@pytest.mark.parametrize("comment", ["synthetic: by a model", "odd", "größer ♪"])
def test_a_comment_is_in_the_file_and_changes_no_sample(tmp_path, comment):
    wave = 0.1 * torch.randn(3000, generator=torch.Generator().manual_seed(0))
    for name in ("a.wav", "a.flac"):
        write_audio(tmp_path / f"plain-{name}", wave)
        write_audio(tmp_path / name, wave, comment=comment)
        assert soundfile.SoundFile(tmp_path / name).comment == comment
        assert torch.equal(load_audio(tmp_path / name), load_audio(tmp_path / f"plain-{name}"))
    (tmp_path / "sent.wav").write_bytes(b"".join(wav_pieces([wave[:100], wave[100:]], comment=comment)))
    assert torch.equal(load_audio(tmp_path / "sent.wav"), load_audio(tmp_path / "a.wav"))
    assert soundfile.SoundFile(tmp_path / "sent.wav").comment == comment


def test_sound_sent_to_a_pipe_is_read_back(tmp_path):
    wave = torch.linspace(-1.2, 1.2, 5000)
    sent = list(wav_pieces([wave[:1], wave[1:3000], wave[3000:]]))
    assert len(sent) == 3 and len(sent[1]) == 2 * 2999
    (tmp_path / "sent.wav").write_bytes(b"".join(sent))
    read = load_audio(tmp_path / "sent.wav")
    torch.testing.assert_close(read, wave.clamp(-1, 1), atol=1 / 32768, rtol=0)
    assert list(wav_pieces([])) == []


def test_real_recordings_are_read(real_audio_dir):
    files = [p for p in sorted(real_audio_dir.rglob("*")) if p.suffix in (".wav", ".ogg")]
    coded = [p for p in files if p.suffix == ".ogg"]
    files = files[:: max(1, len(files) // 60)] + coded[:: max(1, len(coded) // 200)]
    for path in files:
        length = sum(len(block) for block in iterate_audio(path))
        assert length == audio_length(path), path


@pytest.mark.parametrize("frames", [1, 2, 480, 24_001])
def test_a_waveform_at_another_rate_is_the_file_read_at_it(tmp_path, frames):
    wave = 0.3 * torch.sin(torch.arange(frames) / 7)
    write_audio(tmp_path / "a.wav", wave, 24_000)
    held = load_audio(tmp_path / "a.wav")
    assert at_rate(held, 24_000, 24_000) is held
    low = at_rate(held, 24_000, 16_000)
    assert torch.equal(low, load_audio(tmp_path / "a.wav", 16_000))
    assert frames <= len(at_rate(low, 16_000, 24_000)) <= frames + 1
    assert len(at_rate(torch.zeros(0), 24_000, 16_000)) == 0
