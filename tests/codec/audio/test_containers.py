"""A table of damages over all formats that libsndfile writes: what was cut short is noticed, what is whole is read."""

import io
import struct

import numpy as np
import pytest
import soundfile

from codec.audio.waveform import audio_length, load_audio
from codec.io.errors import UserError

SILENT = {"PAF", "PVF", "IRCAM", "XI"}  # their headers announce no length
HEADERLESS = {"RAW", "SD2"}
FORMATS = [
    (name, subtype)
    for name in sorted(set(soundfile.available_formats()) - HEADERLESS)
    for subtype in sorted(soundfile.available_subtypes(name))
    if soundfile.check_format(name, subtype) and (name, subtype) != ("AIFF", "DWVW_12")
]


def made(name, subtype, frames=4_000, channels=1):
    """The bytes of a file, None where this libsndfile can't write it."""
    rate = 8_000 if name == "WVE" or subtype.startswith("NMS") else 24_000
    sound = np.random.default_rng(frames).uniform(-0.5, 0.5, (frames, channels))
    file = io.BytesIO()
    try:
        soundfile.write(file, sound, rate, format=name, subtype=subtype)
    except soundfile.LibsndfileError:
        return None
    return file.getvalue()


def fault_or_length(path, content):
    path.write_bytes(content)
    try:
        length = len(load_audio(path))
    except UserError as error:
        assert str(error).startswith(f"{path}: ") and ";" in str(error) and "\n" not in str(error)
        return str(error)
    assert audio_length(path) == length
    return length


@pytest.mark.parametrize("name", sorted({name for name, _ in FORMATS}))
def test_what_is_cut_short_is_noticed_and_what_is_whole_is_not_refused(tmp_path, name):
    path, tried = tmp_path / "sound.any", 0
    for subtype in [subtype for kind, subtype in FORMATS if kind == name]:
        content = made(name, subtype)
        if content is None:
            continue
        tried += 1
        whole = fault_or_length(path, content)
        assert isinstance(whole, int) and whole >= 2_000, (subtype, whole)
        if name not in SILENT | {"HTK"}:  # HTK's length decides whether it is one
            assert fault_or_length(path, content + b"scraps " * 7) == whole, subtype
        cuts = [len(content) // 10, len(content) // 2, len(content) * 9 // 10, len(content) - 2]
        for keep in cuts if name not in SILENT else ():
            fault = fault_or_length(path, content[:keep])
            wanted = "is not a sound file" if name == "HTK" else "cut short"
            assert wanted in str(fault), (subtype, keep, fault)
        for keep in (1, 4, 11, 20, 36, 43):  # within the header
            fault_or_length(path, content[:keep])
    assert tried


@pytest.mark.parametrize(
    ("name", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "FLOAT")]
)
def test_a_flipped_bit_of_a_header_is_a_sentence_or_a_sound(tmp_path, name, subtype):
    content = made(name, subtype, 600)
    for place in range(min(64, len(content))):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        fault_or_length(tmp_path / "sound.any", bytes(damaged))


@pytest.mark.parametrize(("name", "subtype"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_a_tail_of_zeros_in_place_of_coded_sound_is_noticed(tmp_path, name, subtype):
    content = made(name, subtype, 30_000)
    for zeros in (100, len(content) // 2):
        fault = fault_or_length(tmp_path / "sound.any", content[:-zeros] + bytes(zeros))
        assert "cut short" in str(fault) or "damaged" in str(fault)


# ---- lengths that nobody knew -------------------------------------------------------------------------------------

SOUND = (8_000 * np.sin(np.arange(5_000) / 20)).astype("<i2").tobytes()
LIST = b"LIST\4\0\0\0INFO"


def wav(riff, data, content, extra=b""):
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16)
    return head + extra + struct.pack("<4sI", b"data", data) + content


@pytest.mark.parametrize(
    "data", [0, 0x7FFFF000, 0x7FFFFFDB, 0x7FFFFFFF, 0x80000000, 0xFFFFFFB7, 0xFFFFFFDB, 0xFFFFFFFF]
)
def test_a_wav_file_of_a_pipe_is_read_to_its_end(tmp_path, data):
    path = tmp_path / "a.wav"
    for riff in (0, min(data + 36, 0xFFFFFFFF), 0xFFFFFFFF):
        assert fault_or_length(path, wav(riff, data, SOUND)) == 5_000
        assert fault_or_length(path, wav(riff, data, SOUND, LIST)) == 5_000
        assert "holds no sample" in fault_or_length(path, wav(riff, data, b""))


@pytest.mark.parametrize(
    ("name", "word", "layout", "offset", "numbers"),
    [
        ("AU", b".snd", ">I", 8, [0, 0xFFFFFFFF]),
        ("CAF", b"data", ">q", 4, [-1, 0]),
        ("W64", b"data", "<Q", 16, [0, 24, 2**63 - 1, 2**64 - 1, 0xFFFFFFFF]),
        ("RF64", b"ds64", "<Q", 16, [0, 2**64 - 1]),
        ("AIFF", b"SSND", ">I", 4, [0, 0x7F000008, 0xFFFFFFFF]),
    ],
)
def test_other_files_of_a_pipe_are_read_to_their_end(tmp_path, name, word, layout, offset, numbers):
    content = bytearray(made(name, "PCM_16", 1_000))
    place = content.find(word) + offset
    for number in numbers:
        content[place : place + struct.calcsize(layout)] = struct.pack(layout, number)
        assert fault_or_length(tmp_path / "a.sound", bytes(content)) == 1_000, number


def test_chunks_around_the_sound(tmp_path):
    size, path = len(SOUND), tmp_path / "a.wav"
    odd = b"note\5\0\0\0abcde\0"
    for extra in (b"", LIST, odd):
        assert fault_or_length(path, wav(36 + size + len(extra), size, SOUND, extra)) == 5_000
    assert fault_or_length(path, wav(36 + size + 12, size, SOUND + LIST)) == 5_000
    assert fault_or_length(path, wav(36 + size + 12, size, SOUND + LIST[:-2])) == 5_000  # the sound is whole
    assert fault_or_length(path, wav(36 + 999, 999, SOUND[:999] + b"\0" + LIST)) == 499  # odd, filled up
    assert fault_or_length(path, wav(36 + size, size, SOUND) * 3) == 15_000  # joined files
    assert "cut short" in fault_or_length(path, wav(36 + size, size, SOUND) + wav(36 + size, size, SOUND)[:-9])
    assert "holds no sample" in fault_or_length(path, wav(36 + 12, 0, LIST))
