"""Pieces of a file read as one file."""

import io
import os

from codec.audio.parts import Part, Spliced, Zeros, read_at

RAW = bytes(range(100))


def spliced(*pieces) -> Spliced:
    return Spliced(io.BytesIO(RAW), pieces)


def test_pieces_are_one_file():
    file = spliced(b"head", range(10, 20), Zeros(3), range(90, 95))
    whole = b"head" + RAW[10:20] + bytes(3) + RAW[90:95]
    assert file.read() == whole
    for offset in range(len(whole)):
        file.seek(offset)
        assert file.tell() == offset and file.read(6) == whole[offset : offset + 6]
    assert file.seek(-4, os.SEEK_END) == len(whole) - 4 and file.read() == whole[-4:]
    assert file.seek(-100, os.SEEK_CUR) == 0


def test_a_piece_beyond_the_file_ends_it():
    assert spliced(range(95, 120), b"tail").read() == RAW[95:]


def test_what_the_system_refuses_is_kept():
    class Broken(io.BytesIO):
        def read(self, count=-1):
            raise OSError(5, "Input/output error")

    file = Spliced(Broken(RAW), Part((range(0, 5),)).pieces)
    assert file.read() == b"" and file.error.errno == 5


def test_bytes_at_an_offset():
    raw = io.BytesIO(RAW)
    assert read_at(raw, 98, 5) == RAW[98:] and read_at(raw, -1, 5) == b"" and read_at(raw, 200, 5) == b""
