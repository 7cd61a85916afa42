"""Opening files of sound: what is refused, with which sentence, and how channels become one."""

import contextlib
import os
import socket
import struct
import subprocess
import warnings

import numpy as np
import pytest
import soundfile
import torch

from codec.audio.waveform import audio_length, iterate_audio, load_audio
from codec.io.errors import UserError


def tone(rate, seconds=1.0, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


# ---- files that cannot be read -----------------------------------------------------------------------------------


def cut(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def missing(path):
    return "no such file"


def folder(path):
    path.mkdir()
    return "is a folder"


def empty(path):
    path.write_bytes(b"")
    return "is empty"


def text(path):
    path.write_text("this is not a sound\n" * 50)
    return "is not a sound file"


def no_sample(path):
    soundfile.write(path, np.zeros(0, np.float32), 24_000)
    return "holds no sample"


def nan(path):
    soundfile.write(path, np.r_[tone(24_000), np.nan].astype(np.float32), 24_000, subtype="FLOAT")
    return "NaN"


def infinity(path):
    soundfile.write(path, np.r_[np.inf, tone(24_000)].astype(np.float32), 24_000, subtype="FLOAT")
    return "infinite"


def truncated(path):
    soundfile.write(path, tone(24_000), 24_000)
    cut(path, 0.5)
    return "cut short"


def header_only(path):
    soundfile.write(path, tone(24_000), 24_000)
    path.write_bytes(path.read_bytes()[:20])
    return "cut short"


def silly_rate(path):
    soundfile.write(path, tone(24_000), 24_000)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", 7)
    path.write_bytes(data)
    return "sample rate of 7 Hz"


def dangling(path):
    path.symlink_to(path.with_name("gone.wav"))
    return "does not exist"


def circle(path):
    path.symlink_to(path)
    return "links"


def pipe(path):
    os.mkfifo(path)
    return "is a pipe or a device"


def device(path):
    path.symlink_to("/dev/zero")
    return "is a pipe or a device"


def connection(path):
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:  # a socket's name must be short
        server.bind(path.name)
    return "is a pipe or a device"


def beside_of_macos(path):
    path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200))
    return "what macOS keeps"


BAD = [
    dangling,
    circle,
    pipe,
    device,
    connection,
    beside_of_macos,
    missing,
    folder,
    empty,
    text,
    no_sample,
    nan,
    infinity,
    truncated,
    header_only,
    silly_rate,
]


@pytest.mark.parametrize("make", BAD)
def test_a_bad_file_is_one_sentence_that_names_it(tmp_path, make):
    path = tmp_path / "a.wav"
    fault = make(path)
    with pytest.raises(UserError) as caught:
        load_audio(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and fault in message and "\n" not in message
    assert ";" in message  # what happened; what to do


def test_names_that_no_file_can_have_and_names_that_are_not_utf_8(tmp_path):
    for name, fault in (("a\0.wav", "not a name"), ("a" * 300 + ".wav", "shorter name")):
        with pytest.raises(UserError, match=fault):
            load_audio(tmp_path / name)
    path = os.fsdecode(os.fsencode(tmp_path) + b"/rec\xff.wav")
    with open(path, "wb") as file:
        soundfile.write(file, tone(24_000), 24_000, format="WAV")
    assert len(load_audio(path)) == audio_length(path) == 24_000


def test_whoever_writes_into_a_pipe_is_let_go(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    writer = subprocess.Popen(["sh", "-c", "exec cat /dev/zero > a.wav"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        while writer.poll() is None:  # it may not have opened the pipe yet
            with pytest.raises(UserError, match="is a pipe"):
                load_audio(tmp_path / "a.wav")
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.parametrize("ending", ["WAV", "raw", "txt", "gsm", ""])
def test_the_content_counts_not_the_name(tmp_path, ending):
    soundfile.write(tmp_path / "a.flac", tone(24_000), 24_000)
    (tmp_path / "a.flac").rename(tmp_path / f"b.{ending}")
    assert len(load_audio(tmp_path / f"b.{ending}")) == 24_000
    (tmp_path / f"b.{ending}").write_text("no sound\n" * 99)
    with pytest.raises(UserError, match="is not a sound file"):
        load_audio(tmp_path / f"b.{ending}")


# ---- channels ----------------------------------------------------------------------------------------------------


def channels_of(tmp_path, *channels, block=0.37):
    """What is read of a file with these channels, and what was warned of."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack(channels, 1).astype(np.float32), 24_000, subtype="FLOAT")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole = load_audio(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(torch.cat(list(iterate_audio(path, block))), whole)
    return whole.numpy(), [str(warning.message) for warning in said]


@pytest.mark.parametrize("others", [[-1.0], [-0.9], [-1.0, 0.5, -0.5], [-0.7, -0.3], [-1.0] + [0.0] * 6])
def test_channels_that_cancel_each_other(tmp_path, others):
    one = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000).astype(np.float32)
    for offset in (0.0, 0.1):
        wave, said = channels_of(tmp_path, one + offset, *(one * share + offset for share in others))
        np.testing.assert_array_equal(wave, one + np.float32(offset))
        assert len(said) == 1 and str(tmp_path / "a.wav") in said[0] and "channel 1 alone" in said[0]
    wave, said = channels_of(tmp_path, *(one * share * 0.9 for share in others), one)
    np.testing.assert_array_equal(wave, one)
    assert f"channel {len(others) + 1} alone" in said[0]


def test_ordinary_channels_are_averaged_without_a_word(tmp_path):
    random = np.random.default_rng(0)
    one, two = random.uniform(-0.5, 0.5, (2, 30_000)).astype(np.float32)
    half = np.where(np.arange(30_000) < 15_000, one, -one)  # opposite for half of the time
    many = random.uniform(-0.5, 0.5, (40, 30_000)).astype(np.float32)
    silence = np.zeros_like(one)
    for channels in ([one, two], [one, one], [one, silence], [one, -0.5 * one], [one, half], [*many], [silence] * 2):
        wave, said = channels_of(tmp_path, *channels)
        assert not said
        np.testing.assert_array_equal(wave, np.stack(channels, 1).mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("ending", ["flac", "ogg"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_compressed_file(tmp_path, ending, keep):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 48_000), 24_000)
    cut(path, keep)
    with pytest.raises(UserError, match="cut short"):
        load_audio(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(24_000), 24_000)
    (tmp_path / "a.wav").chmod(0)
    with pytest.raises(UserError, match="may not be read"):
        load_audio(tmp_path / "a.wav")


def test_permission_as_the_system_reports_it(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "a.wav").touch()

    def refuse(self, mode="r", *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="may not be read"):
        load_audio(tmp_path / "a.wav")
