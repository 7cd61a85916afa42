"""Sound files, open: every stream of sound in a file, with every fault of the file as one sentence."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codec.audio.bitstreams import id3_size, stream_parts
from codec.audio.containers import container_parts
from codec.audio.parts import CUT_SHORT, NOT_SOUND, DamagedSound, Part, Spliced
from codec.io.errors import UserError, of_system

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 400_000  # Hz; a header with another rate is damaged
_VALUES = 1 << 22  # read at once, over all channels: the bound on memory
_CANCELLED = 0.1  # of the power that unrelated channels would leave in their mean: less of it is cancellation
_APPLE_DOUBLE = (b"\0\5\x16\7", b"\0\5\x16\0")


class Sound:
    """One stream of sound of a file, read once from its beginning to its end.

    rate: Hz; frames: how many there are
    """

    def __init__(self, path: Path, raw: BinaryIO, part: Part) -> None:
        self._path, self._raw, self._part = path, raw, part
        self._file = self._open()
        self.rate = self._file.samplerate
        self.frames = self._file.frames if part.frames is None else part.frames
        fault = None
        if not _LOWEST_RATE <= self.rate <= _HIGHEST_RATE:
            fault = f"has a sample rate of {self.rate} Hz; resample it to 24000 Hz"
        elif self.frames > 2**48:
            fault = "does not state its length; copy it again"
        if fault:
            raise DamagedSound(fault)

    def read(self, frames: int) -> np.ndarray:
        """The next `frames` frames as mono, (frames,) float32: the mean of the channels, or `channel` alone."""
        pieces = [self._mono(block) for block in self._blocks(self._file, frames)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    @cached_property
    def channel(self) -> int | None:
        """The loudest channel, where the channels cancel each other so that nothing of their mean would be left.

        Measured over the whole sound, in steps that do not depend on how it is read.
        """
        if self._file.channels == 1:
            return None
        total = np.zeros(self._file.channels)  # sums over frames, of each channel
        squares, mean_total, mean_squares = total.copy(), 0.0, 0.0
        with self._open() as file:
            for block in self._blocks(file, self.frames):
                mean = block.mean(axis=1, dtype=np.float64)
                total += block.sum(axis=0, dtype=np.float64)
                squares += np.square(block, dtype=np.float64).sum(axis=0)
                mean_total, mean_squares = mean_total + mean.sum(), mean_squares + np.square(mean).sum()
        # Powers without the mean: an offset of a sound card is no sound.
        powers = np.maximum(squares / self.frames - (total / self.frames) ** 2, 0)
        left = mean_squares / self.frames - (mean_total / self.frames) ** 2
        if left * len(powers) >= _CANCELLED * powers.mean() or powers.max() < 1e-12:
            return None
        loudest = int(np.argmax(powers > 0.999 * powers.max()))  # the first of equals, whatever their last bits
        warnings.warn(
            f"{self._path}: its channels cancel each other; channel {loudest + 1} alone is used", stacklevel=2
        )
        return loudest

    def close(self) -> None:
        self._file.close()

    def _mono(self, block: np.ndarray) -> np.ndarray:
        if block.shape[1] == 1:
            return block[:, 0]
        return block.mean(axis=1, dtype=np.float32) if self.channel is None else block[:, self.channel]

    def _blocks(self, file: _Forwards, frames: int) -> Iterator[np.ndarray]:
        """The next `frames` frames, (n, channels) float32 each. Raises DamagedSound where they are not there."""
        step = max(1, _VALUES // file.channels)
        for start in range(0, frames, step):
            count = min(step, frames - start)
            try:
                block = file.read(count, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                _raise_refusal(file)
                raise DamagedSound(f"is damaged or cut short ({error.error_string}); copy it again") from error
            if len(block) < count:
                _raise_refusal(file)
                raise DamagedSound(CUT_SHORT)
            if not np.isfinite(block).all():
                raise DamagedSound("holds NaN or infinite samples; export it again")
            yield block

    def _open(self) -> _Forwards:
        source = Spliced(self._raw, self._part.pieces)
        try:
            return _Forwards(source)
        except (soundfile.LibsndfileError, TypeError) as error:
            if source.error is not None:
                raise source.error from error
            raise DamagedSound(NOT_SOUND) from error


class _Forwards(soundfile.SoundFile):  # type: ignore[misc]  # soundfile is not typed
    """A file that is read from its beginning to its end.

    soundfile seeks after every read, which some formats can't, and which takes from MP3 what a frame needs of the
    frames before it.
    """

    def __init__(self, source: Spliced) -> None:
        super().__init__(source)
        self.source = source

    def seekable(self) -> bool:
        return False


def _raise_refusal(file: _Forwards) -> None:
    """Raise what the system said, where it was the system that ended the reading."""
    if file.source.error is not None:
        raise file.source.error


@contextmanager
def open_sounds(path: str | Path) -> Iterator[Iterator[Sound]]:
    """The streams of sound in a file, one after the other: nearly always one. Raises UserError for every fault."""
    path = Path(path)
    try:
        with _open_bytes(path) as raw:
            yield _sounds(path, raw)
    except DamagedSound as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise of_system(error, path) from error


def _sounds(path: Path, raw: BinaryIO) -> Iterator[Sound]:
    size = raw.seek(0, os.SEEK_END)
    start = id3_size(raw, 0)
    parts = container_parts(raw, start, size) or stream_parts(raw, start, size) or [Part((range(size),))]
    empty = True
    for part in parts:
        sound = Sound(path, raw, part)
        try:
            if sound.frames > 0:
                empty = False
                yield sound
        finally:
            sound.close()
    if empty:
        raise DamagedSound("holds no sample; record or copy it again")


def _open_bytes(path: Path) -> BinaryIO:
    """An ordinary file that holds something, open. Anything else (a pipe, a device) is answered at once."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a folder; give a sound file")
        if stat.S_ISFIFO(mode):  # let go whoever waits to write into it
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        if not stat.S_ISREG(mode):
            raise UserError(f"{path}: is a pipe or a device, not a file; write what it gives to a file first")
        raw = path.open("rb", buffering=1 << 16)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise UserError(f"{path}: is a link to a file that does not exist; check the path") from error
        raise UserError(f"{path}: no such file; check the path") from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; change its permissions") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: not a name that a file can have; check the path") from error
    head = raw.read(4)
    if not head or head in _APPLE_DOUBLE:
        raw.close()
        if head:
            raise UserError(f"{path}: is what macOS keeps about a file of that name; give the file without ._ in front")
        raise UserError(f"{path}: is empty (0 bytes); record or copy it again")
    return raw
