"""Files whose header states how many bytes of sound there are: WAV and its kin, AIFF, CAF, AU, and older ones.

Each function looks at one family. It gives the file's parts and raises DamagedSound where the sound ends before its
header says so. Formats that do not state their length (PVF, IRCAM, PAF, XI) can't be checked.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from codec.audio.parts import CUT_SHORT, DamagedSound, Part, read_at

_HEAD = 64  # bytes at the head of a file that tell its family and hold the numbers looked at here


def container_parts(raw: BinaryIO, start: int, size: int) -> list[Part] | None:
    """The parts of a file of `size` bytes whose sound begins at `start`; None where it is of no family known here."""
    head = read_at(raw, start, _HEAD)
    look = next((look for magic, look in _FAMILIES if re.match(magic, head, re.DOTALL)), None)
    if look is None:
        return None
    parts = []
    while start < size:
        stop = _next_file(raw, start, size)
        parts += look(raw, start, stop)
        start = stop
    return parts


def _next_file(raw: BinaryIO, start: int, size: int) -> int:
    """Where another WAV or AIFF file begins behind the one at `start` (files that were joined), or the file's size."""
    name, length, kind = read_at(raw, start, 4), read_at(raw, start + 4, 4), read_at(raw, start + 8, 4)
    if name not in (b"RIFF", b"RIFX", b"FORM"):
        return size
    number = int.from_bytes(length, "little" if name == b"RIFF" else "big")
    for stop in (start + 8 + number, start + 8 + number + 1):
        if read_at(raw, stop, 4) == name and read_at(raw, stop + 8, 4) == kind:
            return stop
    return size


def _riff(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """WAV: RIFF, its big-endian form RIFX, and RF64 with lengths of 64 bits."""
    order = ">" if read_at(raw, start, 4) == b"RIFX" else "<"
    long_length = None
    for name, at, length in _chunks(raw, start + 12, size, order + "4sI"):
        if name == b"ds64":
            long_at, (long_length,) = at + 8, struct.unpack("<Q", read_at(raw, at + 8, 8).ljust(8, b"\0"))
        if name == b"data":
            if length == 0xFFFFFFFF and long_length is not None:
                return _sound(raw, start, at, long_length, size, "<Q", long_at)
            return _sound(raw, start, at, length, size, order + "I", at - 4)
    return [Part((range(start, size),))]


def _form(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """AIFF, AIFF-C and the Amiga's 8SVX."""
    for name, at, length in _chunks(raw, start + 12, size, ">4sI"):
        if name == b"BODY":
            return _ends(start, at + length, size)
        if name == b"SSND":
            return _sound(raw, start, at, length, size, ">I", at - 4)
    return [Part((range(start, size),))]


def _w64(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """Sony's Wave64: names of 16 bytes, lengths of 64 bits that include name and length, steps of 8 bytes."""
    at = start + 40
    while at + 24 <= size:
        name, length = struct.unpack("<4s12xQ", read_at(raw, at, 24))
        if name == b"data":
            if length > 24 and not _is_unknown(length):
                return _ends(start, at + length, size)
            return _sound(raw, start, at + 24, 0, size, "<Q", at + 16, counted=24)
        at += max(24, (length + 7) // 8 * 8)
    raise DamagedSound(CUT_SHORT)


def _caf(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """Apple's Core Audio Format; -1 bytes of data reach to the end."""
    for name, at, length in _chunks(raw, start + 8, size, ">4sq", even=False):
        if name == b"data":
            return _sound(raw, start, at, max(0, length), size, ">q", at - 8)
    return [Part((range(start, size),))]


def _au(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """Sun's AU in either byte order."""
    order = ">" if read_at(raw, start, 4) == b".snd" else "<"
    offset, length = _numbers(raw, start + 4, order + "II")
    if _is_unknown(length):
        return _sound(raw, start, start + offset, length, size, order + "I", start + 8)
    return _ends(start, start + offset + length, size)


def _voc(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """Creative's VOC: blocks of a type and a length of 24 bits, up to one of type 0."""
    at = start + _numbers(raw, start + 20, "<H")[0]
    while at + 4 <= size and 1 <= (block := read_at(raw, at, 4))[0] <= 9:
        at += 4 + int.from_bytes(block[1:], "little")
    return _ends(start, at + (read_at(raw, at, 1) == b"\0"), size)


def _sphere(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """NIST SPHERE: a header of lines of text."""
    text = read_at(raw, start, 1024).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -i (\d{1,15})\s*$", text, re.MULTILINE))
    header = re.match(r"NIST_1A\s+(\d{1,9})", text)
    if header is None or "sample_count" not in fields or ",embedded" in text:  # packed sound is as long as it is
        return [Part((range(start, size),))]
    width = int(fields.get("channel_count", 1)) * int(fields.get("sample_n_bytes", 1))
    return _ends(start, start + int(header[1]) + int(fields["sample_count"]) * width, size)


def _avr(raw: BinaryIO, start: int, size: int) -> list[Part]:
    stereo, bits, frames = _numbers(raw, start + 12, ">HHxxxxxxxxxxI")[:3]
    return _ends(start, start + 128 + frames * (2 if stereo else 1) * (bits // 8), size)


def _mpc(raw: BinaryIO, start: int, size: int) -> list[Part]:
    stereo, frames = _numbers(raw, start + 21, "<BxxxxxxxxI")
    return _ends(start, start + 42 + frames * (2 if stereo else 1) * 2, size)


def _wve(raw: BinaryIO, start: int, size: int) -> list[Part]:
    return _ends(start, start + 32 + _numbers(raw, start + 18, ">I")[0], size)


def _sds(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """MIDI sample dump: numbers of 7 bits a byte, packets of 127 bytes that hold 120 of samples."""
    numbers = read_at(raw, start, 21).ljust(21, b"\0")
    per_packet = 120 // max(2, (numbers[6] + 6) // 7)
    samples = numbers[10] | numbers[11] << 7 | numbers[12] << 14
    return _ends(start, start + 21 + -(-samples // per_packet) * 127, size)


def _mat4(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """MATLAB 4: matrices one after the other, each with its sizes in front."""
    order, at = ("<" if read_at(raw, start + 4, 1) == b"\1" else ">"), start
    while at + 20 <= size:
        kind, rows, columns, _, length = _numbers(raw, at, order + "5I")
        name = read_at(raw, at + 20, min(length, 64))
        at += 20 + length + rows * columns * (8, 4, 4, 2, 2, 1, 0, 0, 0, 0)[kind // 10 % 10]
        if name.startswith(b"wavedata"):
            return _ends(start, at, size)
    raise DamagedSound(CUT_SHORT)


def _mat5(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """MATLAB 5 as sound programs write it: the matrix `wavedata` comes last."""
    head = read_at(raw, start, 1024)
    at = head.find(b"wavedata")
    if at < 0 or len(head) < at + 16:
        raise DamagedSound(CUT_SHORT)
    order = "<" if head[126:128] == b"IM" else ">"
    return _ends(start, start + at + 16 + struct.unpack_from(order + "I", head, at + 12)[0], size)


_FAMILIES: tuple[tuple[bytes, Callable[[BinaryIO, int, int], list[Part]]], ...] = (
    (rb"(RIFF|RIFX|RF64).{4}WAVE", _riff),
    (rb"FORM.{4}(AIFF|AIFC|8SVX|16SV)", _form),
    (rb"riff\x2e\x91\xcf\x11.{16}wave", _w64),
    (rb"caff\x00\x01", _caf),
    (rb"\.snd|dns\.", _au),
    (rb"Creative Voice File\x1a", _voc),
    (rb"NIST_1A", _sphere),
    (rb"2BIT", _avr),
    (rb"\x01\x04.{15}", _mpc),
    (rb"ALawSoundFile\*\*\0", _wve),
    (rb"\xf0\x7e.\x01", _sds),
    (rb"MATLAB 5\.0 MAT-file", _mat5),
    (rb".{20}samplerate\0", _mat4),
)


def _chunks(raw: BinaryIO, at: int, size: int, layout: str, even: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its content begins, length) of each chunk. Raises DamagedSound where one reaches beyond the file.

    Args:
        even: An odd length is followed by a byte that fills up. Some programs leave it out: then a name follows at
            once.
    """
    header = struct.calcsize(layout)
    while at + header <= size:
        name, length = struct.unpack(layout, read_at(raw, at, header))
        yield name, at + header, length
        at += header + length
        if even and length % 2 and not re.fullmatch(rb"[A-Za-z][\w ]{3}", read_at(raw, at, 4)):
            at += 1
    if at > size + 1:
        raise DamagedSound(CUT_SHORT)


def _sound(
    raw: BinaryIO, start: int, at: int, length: int, size: int, layout: str, length_at: int, counted: int = 0
) -> list[Part]:
    """The part whose sound begins at `at` and has `length` bytes, as the number at `length_at` says.

    A program that writes to a pipe cannot know the length and leaves 0 or the highest number: then the sound reaches
    to the end of the file, and libsndfile is told so.

    Args:
        counted: Bytes in front of the sound that belong to its length.
    """
    rest = size - at
    if length == 0 and _is_chunks(raw, at, size, layout[0]):
        rest = 0  # no sound, but more chunks
    if rest > 0 and _is_unknown(length):
        number = struct.pack(layout, min(rest + counted, 2 ** (8 * struct.calcsize(layout)) - 1))
        return [Part((range(start, length_at), number, range(length_at + len(number), size)))]
    if length > rest and not _is_unknown(length):
        raise DamagedSound(CUT_SHORT)
    return [Part((range(start, size),))]


def _is_unknown(length: int) -> bool:
    """Whether a length of sound stands for 'not known': 0, or near the highest number of 31 bits, 32 bits or 64 bits.

    sox leaves 0x7FFFF000 for WAV and 0x7F000008 for AIFF, others subtract their header from the highest number.
    """
    return (
        length == 0
        or length in (0x7F000000, 0x7F000008)
        or (0x7FFFEF00 <= length <= 0x80000100 or 0xFFFFFF00 <= length <= 0xFFFFFFFF or length >= 2**62)
    )


def _is_chunks(raw: BinaryIO, at: int, size: int, order: str) -> bool:
    """Whether well-formed chunks, at least one, fill the file from here to its end."""
    if at >= size:
        return False
    while at + 8 <= size:
        name, length = struct.unpack(order + "4sI", read_at(raw, at, 8))
        if not re.fullmatch(rb"[A-Za-z][\w ]{3}", name):
            return False
        at += 8 + length + length % 2
    return at in (size, size + 1)


def _ends(start: int, end: int, size: int) -> list[Part]:
    """One part whose sound ends at `end`: libsndfile would read what follows it as sound."""
    if end > size:
        raise DamagedSound(CUT_SHORT)
    return [Part((range(start, end),))]


def _numbers(raw: BinaryIO, at: int, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, read_at(raw, at, struct.calcsize(layout)).ljust(struct.calcsize(layout), b"\0"))
