"""What a sound file holds, as bytes: the streams of sound in it, each of them pieces that libsndfile reads as one file.

libsndfile takes what is there: it reads a file that was cut short as a shorter one, the first of several streams alone,
and as many samples as a wrong header claims. So the bytes are looked at first (codec/audio/containers.py and
codec/audio/bitstreams.py), and what libsndfile gets is whole, with its true length in the header.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CUT_SHORT = "is cut short, its header promises more sound than it holds; copy it again"
NOT_SOUND = "is not a sound file that can be read; convert it to WAV, FLAC, OGG or MP3"


class DamagedSound(Exception):
    """What is wrong with a sound file and what to do, as the end of a sentence that begins with its name."""


@dataclass(frozen=True)
class Zeros:
    """So many bytes that are 0."""

    # bytes
    count: int

    def __len__(self) -> int:
        return self.count


Piece = range | bytes | Zeros


@dataclass(frozen=True)
class Part:
    """One stream of sound."""

    # ranges of the file's bytes, and bytes in place of such; in this order they are a file
    pieces: tuple[Piece, ...]
    # number of frames, where it is known better than from the header
    frames: int | None = None


class Spliced(io.RawIOBase):
    """The pieces of a part as one file. Errors of the system are kept in `error`: libsndfile is told of an end only."""

    def __init__(self, raw: BinaryIO, pieces: tuple[Piece, ...]) -> None:
        self._raw, self._pieces = raw, pieces
        self._stops = list(accumulate(map(len, pieces)))
        self._at = self._piece = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stops[-1] if self._stops else 0}[whence]
        self._at, self._piece = max(0, base + offset), 0
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as there are bytes: libsndfile takes less for the end."""
        view, filled = memoryview(buffer).cast("B"), 0
        while filled < len(view) and self._piece < len(self._pieces):
            piece, stop = self._pieces[self._piece], self._stops[self._piece]
            if self._at >= stop:
                self._piece += 1
                continue
            first = self._at - (stop - len(piece))
            count = min(len(view) - filled, stop - self._at)
            if isinstance(piece, bytes):
                found = piece[first : first + count]
            elif isinstance(piece, Zeros):
                found = bytes(count)
            else:
                found = self._read(piece.start + first, count)
            if not found:
                break
            view[filled : filled + len(found)] = found
            filled += len(found)
            self._at += len(found)
        return filled

    def _read(self, start: int, count: int) -> bytes:
        try:
            self._raw.seek(start)
            return self._raw.read(count)
        except OSError as error:
            self.error = error
            return b""


def read_at(raw: BinaryIO, at: int, count: int) -> bytes:
    """The `count` bytes at an offset, or fewer where the file ends; none before its beginning."""
    if at < 0:
        return b""
    raw.seek(at)
    return raw.read(count)
