"""Files that are streams of frames or pages: MP3, Ogg and FLAC. Their length is what their frames add up to.

Each function gives the parts of a file, and raises DamagedSound where frames or pages are missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

from codec.audio.parts import CUT_SHORT, NOT_SOUND, DamagedSound, Part, Zeros, read_at

_BLOCK = 1 << 16  # bytes that are searched at once


def stream_parts(raw: BinaryIO, start: int, size: int) -> list[Part] | None:
    """The parts of a file of `size` bytes whose sound begins at `start`; None where it is no such stream."""
    head = read_at(raw, start, 4)
    if head == b"OggS":
        return _ogg(raw, start, size)
    if head == b"fLaC":
        return [_flac(raw, start, size)]
    return _mpeg(raw, start, size)


def id3_size(raw: BinaryIO, at: int) -> int:
    """Bytes of the ID3v2 tag at an offset, 0 where there is none."""
    head = read_at(raw, at, 10)
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:]) > 0x7F:
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + footer + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])


# ---- Ogg ---------------------------------------------------------------------------------------------------------


def _ogg(raw: BinaryIO, start: int, size: int) -> list[Part]:
    """One part for every link of a chain: a link begins where a stream begins after pages that hold sound."""
    parts: list[Part] = []
    first, in_heads, last = start, True, None
    numbers: dict[int, int] = {}  # serial number of a stream -> number of its next page
    at = start
    while (page := _page(raw, at, size)) is not None:
        if page.begins and not in_heads:
            _check_last(raw, last)
            parts.append(Part((range(first, page.at),)))
            first, numbers = page.at, {}
        if not page.begins and page.number != numbers.get(page.serial):
            raise DamagedSound("is damaged, a part of it is missing; copy it again")
        numbers[page.serial] = page.number + 1
        in_heads, last, at = page.begins, page, page.at + page.length
    _check_last(raw, last)
    return [*parts, Part((range(first, at),))]


@dataclass(frozen=True)
class _Page:
    """A page of Ogg. begins, ends: whether it is the first or the last one of its stream."""

    at: int
    length: int  # bytes
    begins: bool
    ends: bool
    serial: int
    number: int


def _check_last(raw: BinaryIO, page: _Page | None) -> None:
    """Raise DamagedSound where a link's last page is not the end of its stream, or not whole."""
    if page is not None and page.ends:
        content = read_at(raw, page.at, page.length)
        if _crc(content[:22] + bytes(4) + content[26:], 0x04C11DB7, 32) == int.from_bytes(content[22:26], "little"):
            return
    raise DamagedSound(CUT_SHORT)


def _page(raw: BinaryIO, at: int, size: int) -> _Page | None:
    """The next page from an offset on; None where no other begins."""
    while at + 27 <= size:
        head = read_at(raw, at, 282)
        if head[:4] == b"OggS":
            _, kind, serial, number, segments = struct.unpack_from("<BB8xII4xB", head, 4)
            length = 27 + segments + sum(head[27 : 27 + segments])
            if at + length > size:
                raise DamagedSound(CUT_SHORT)
            return _Page(at, length, bool(kind & 2), bool(kind & 4), serial, number)
        at = _find(raw, b"OggS", at, size)
    return None


def _find(raw: BinaryIO, word: bytes, at: int, size: int) -> int:
    """Where a word is next, or the file's size."""
    while at < size:
        offset = read_at(raw, at, _BLOCK).find(word)
        if offset >= 0:
            return at + offset
        at += _BLOCK - len(word) + 1
    return size


# ---- FLAC --------------------------------------------------------------------------------------------------------


def _flac(raw: BinaryIO, start: int, size: int) -> Part:
    """The file, with its number of samples where its header leaves that open: the last frame tells."""
    about = read_at(raw, start + 8, 34)  # the stream's description, which comes first
    if len(about) < 34:
        raise DamagedSound(CUT_SHORT)
    samples = int.from_bytes(about[13:18], "big") & (1 << 36) - 1
    if samples == 0:
        stop = size - 128 if read_at(raw, size - 128, 3) == b"TAG" else size
        total = _flac_samples(raw, start, stop, int.from_bytes(about[2:4], "big"))
        number = int.from_bytes(about[13:18], "big") | total
        return Part((range(start, start + 21), number.to_bytes(5, "big"), range(start + 26, size)), total)
    return Part((range(start, size),))


def _flac_samples(raw: BinaryIO, start: int, stop: int, block: int) -> int:
    """Samples up to the end of the frame that ends at `stop`."""
    at, last = start + 4, False
    while not last:  # blocks of description
        head = read_at(raw, at, 4)
        if len(head) < 4 or at > stop:
            raise DamagedSound(CUT_SHORT)
        last, at = bool(head[0] & 0x80), at + 4 + int.from_bytes(head[1:], "big")
    if at == stop:
        return 0
    tail = read_at(raw, max(at, stop - (1 << 20)), min(stop - at, 1 << 20))
    offset = len(tail)
    while (offset := tail.rfind(b"\xff", 0, offset)) >= 0:
        found = _flac_frame(tail[offset : offset + 16], block)
        if found is not None and _crc(tail[offset:], 0x8005, 16) == 0:
            return found
    raise DamagedSound(CUT_SHORT)


def _flac_frame(head: bytes, block: int) -> int | None:
    """Samples from the stream's beginning to the end of the frame with this header; None where it is no header."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8:
        return None
    width = max(1, 8 - (head[4] ^ 0xFF).bit_length())  # bytes of the number, coded as UTF-8 codes a character
    size_code, rate_code = head[2] >> 4, head[2] & 15
    size_bytes = {6: 1, 7: 2}.get(size_code, 0)
    rate_bytes = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    end = 4 + width + size_bytes + rate_bytes
    if width > 7 or size_code == 0 or len(head) <= end or _crc(head[:end], 0x07, 8) != head[end]:
        return None
    number = head[4] & (0x7F if width == 1 else 0xFF >> (width + 1))
    for byte in head[5 : 4 + width]:
        number = number << 6 | byte & 0x3F
    if size_bytes:
        samples = int.from_bytes(head[4 + width : 4 + width + size_bytes], "big") + 1
    elif size_code == 1:
        samples = 192
    else:
        samples = 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    return (number if head[1] & 1 else number * block) + samples


# ---- MPEG audio --------------------------------------------------------------------------------------------------

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz; MPEG-1, MPEG-2, 2.5
_KILOBITS = {  # (MPEG-1 or not, layer) -> kbit/s
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_FRAME_HEAD = 64  # bytes that hold a frame's header and, in the first frame, what encoders tell of the whole stream


@dataclass(frozen=True)
class _Frame:
    """A frame of MPEG audio. tag: None, or what it tells in place of sound: (frames, bytes), None where it doesn't."""

    at: int
    length: int  # bytes
    samples: int
    kind: tuple[int, int, int, bool]  # version, layer, rate, mono: one in all frames of a stream
    tag: tuple[int | None, int | None] | None


class _Link:
    """Frames of one kind that follow each other: what one encoder wrote."""

    def __init__(self, first: _Frame) -> None:
        self.first, self.frames, self.largest = first, 0, 0
        self.ranges: list[range] = []

    def add(self, frame: _Frame) -> None:
        if self.ranges and self.ranges[-1].stop == frame.at:
            self.ranges[-1] = range(self.ranges[-1].start, frame.at + frame.length)
        else:
            self.ranges.append(range(frame.at, frame.at + frame.length))
        self.frames += frame.tag is None
        self.largest = max(self.largest, frame.length)

    def part(self) -> Part:
        frames, length = self.first.tag or (None, None)
        ranges = self.ranges
        if frames is not None and self.frames < frames and (length is None or sum(map(len, ranges)) < length):
            raise DamagedSound(CUT_SHORT)
        if frames == self.frames:  # then libsndfile knows the length, and takes off what the encoder added
            return Part(tuple(ranges))
        if self.first.tag is not None:
            ranges = [range(ranges[0].start + self.first.length, ranges[0].stop), *ranges[1:]]
        # Without such a tag, libsndfile guesses the length from the first frame and the file's size, and reads no
        # further. Zeros behind the end, which nobody reads, make the guess high enough.
        zeros = (self.frames + 1) * self.largest - sum(map(len, ranges))
        return Part((*ranges, Zeros(zeros)), self.frames * self.first.samples)


def _mpeg(raw: BinaryIO, start: int, size: int) -> list[Part] | None:
    """A part for every stretch of frames of one kind, without what lies between frames: tags, and what a cut left."""
    parts: list[Part] = []
    link: _Link | None = None
    for frame in _frames(raw, start, size):
        if link is None or frame.tag is not None or frame.kind != link.first.kind:
            if link is not None:
                parts.append(link.part())
            link = _Link(frame)
        link.add(frame)
    return None if link is None else [*parts, link.part()]


def _frames(raw: BinaryIO, start: int, size: int) -> Iterator[_Frame]:
    """The frames of a file. Raises DamagedSound where the last one is not whole."""
    stop = size - 128 if size - 128 > start and read_at(raw, size - 128, 3) == b"TAG" else size
    at, kind = start, None
    while at < stop:
        frame = _frame(raw, at)
        if frame is None or frame.kind != kind:
            frame = _next_frame(raw, at, stop, 1 if kind else 2)
            if frame is None:
                return
        if frame.at + frame.length > stop:
            raise DamagedSound(CUT_SHORT)
        yield frame
        at, kind = frame.at + frame.length, frame.kind


def _next_frame(raw: BinaryIO, at: int, stop: int, more: int) -> _Frame | None:
    """The first frame from an offset on that `more` frames of its kind follow, or the end; None where there is none.

    Where no frame was seen yet (`more` is 2), it must be near: other files hold what looks like frames.
    """
    first, last = at, stop if more < 2 else min(stop, at + _BLOCK)
    while at < last:
        if (tag := id3_size(raw, at)) > 0:
            at += tag
            continue
        frame = follower = _frame(raw, at)
        for _ in range(more):
            # At the offset where a frame must begin, one that reaches beyond the end was cut short.
            if follower is None or (after := follower.at + follower.length) == stop or (after > stop and at == first):
                break
            kind, follower = follower.kind, _frame(raw, after)
            if follower is not None and follower.kind != kind:
                follower = None
        if follower is not None:
            return frame
        at = min(_find(raw, b"\xff", at + 1, last), _find(raw, b"ID3", at + 1, last))
    if more == 2 and _frame(raw, first) is not None:
        raise DamagedSound(NOT_SOUND)  # the decoder would take it for MP3, and find no more
    return None


def _frame(raw: BinaryIO, at: int) -> _Frame | None:
    """The frame at an offset; None where there is none."""
    head = read_at(raw, at, _FRAME_HEAD)
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, bits, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first, hertz, mono = version == 3, _RATES[version][rate], head[3] >> 6 == 3
    bits_per_second, padding = _KILOBITS[first, layer][bits - 1] * 1000, head[2] >> 1 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    length = (12 * bits_per_second // hertz + padding) * 4 if layer == 1 else samples // 8 * bits_per_second // hertz
    length += padding if layer > 1 else 0
    tag = _tag(head, (17 if mono else 32) if first else (9 if mono else 17)) if layer == 3 else None
    return _Frame(at, length, samples, (version, layer, hertz, mono), tag)


def _tag(head: bytes, side: int) -> tuple[int | None, int | None] | None:
    """What a first frame tells of its stream, in Xing's way (behind `side` bytes that are 0) or Fraunhofer's."""
    if head[4 + side : 8 + side] in (b"Xing", b"Info"):
        flags, *numbers = struct.unpack(">3I", head[8 + side : 20 + side].ljust(12, b"\0"))
        found = iter(numbers)
        frames, length = (next(found) if flags & bit else None for bit in (1, 2))
        return frames, length
    if head[36:40] == b"VBRI":
        length, frames = struct.unpack(">II", head[46:54].ljust(8, b"\0"))
        return frames, length
    return None


# ---- checks --------------------------------------------------------------------------------------------------------


@cache
def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    table = []
    for value in range(256):
        value <<= bits - 8
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value >> bits - 1 else 0)) & (1 << bits) - 1
        table.append(value)
    return tuple(table)


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    """Cyclic redundancy check, highest bit first, from 0."""
    table, value, above = _crc_table(polynomial, bits), 0, (1 << bits) - 1
    for byte in data:
        value = (value << 8 & above) ^ table[value >> bits - 8 ^ byte]
    return value
