"""The cache of what a model generated, a codec decoded and a judge measured: a re-run or a kill costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codec.io.errors import UserError, of_system
from codec.io.files import remove_leftovers, replace_file

_MARK = b"uniaudio cache 2 "


def key_of(**parts: Any) -> str:
    """Key of plain values with names, 32 hexadecimal digits: the same on every machine and day."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def bytes_key(*arrays: Any) -> str:
    """Key of numpy arrays, 32 hexadecimal digits: a hash of type, shape and content."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


class CannotGoOn(UserError):
    """What stops every task: the cache cannot be read or written, or a process of the judges has ended."""


class Cache:
    """Bytes under keys, one file each, written atomically, with a checksum that covers key and content.

    An entry that is damaged is counted, and made again. Entries without a checksum, of earlier versions, hold the
    content alone; their reader checks whether they are whole.
    """

    def __init__(self, folder: str | Path, others: Sequence[str | Path] = ()) -> None:
        """Open a cache, which need not exist yet.

        Args:
            folder: Where new entries go.
            others: Further folders that are only read.

        Raises:
            UserError: One of the others does not exist.
        """
        self.folder = Path(folder)
        self._folders = [self.folder, *map(Path, others)]
        self.hits = self.misses = self.damaged = 0
        for other in map(Path, others):
            if not other.is_dir():
                raise UserError(
                    f"{other}: no such folder of cached outputs; give the output folder of an earlier run (--untrained)"
                )

    def get(self, key: str, read: Callable[[bytes], Any] = bytes) -> Any:
        """An entry; None where there is none that is whole.

        Args:
            key: Of `key_of`.
            read: Turns the content into a value; raises ValueError for content that cannot be an entry.

        Raises:
            CannotGoOn: The system refuses to read the file.
        """
        for folder in self._folders:
            path = folder / key[:2] / key
            try:
                if not path.is_file():
                    continue
                value = read(_content(key, path.read_bytes()))
            except ValueError:
                self.damaged += 1
                continue
            except OSError as error:
                raise CannotGoOn(str(of_system(error, path))) from error
            self.hits += 1
            return value
        self.misses += 1
        return None

    def put(self, key: str, content: bytes) -> None:
        """Store an entry: all of it or nothing, also when the process is killed or another one writes the same.

        Raises:
            CannotGoOn: The system refuses to write.
        """
        try:
            with replace_file(self.folder / key[:2] / key, durable=False) as temporary:
                temporary.write_bytes(_head(key, content) + content)
        except UserError as error:
            raise CannotGoOn(str(error)) from error

    def get_json(self, key: str, read: Callable[[Any], Any] = lambda value: value) -> Any:
        """As `get`, for an entry that is a plain value."""
        return self.get(key, lambda content: read(_value(content)))

    def put_json(self, key: str, value: Any) -> None:
        """As `put`, for a plain value."""
        self.put(key, json.dumps(value).encode())

    def clean(self) -> None:
        """Remove what a killed process left half written; for the folder's only writer."""
        for folder in self.folder.glob("*/"):
            remove_leftovers(folder)
            for left in folder.glob("*.tmp"):  # of earlier versions
                left.unlink(missing_ok=True)


def _value(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _head(key: str, content: bytes) -> bytes:
    return _MARK + hashlib.sha256(key.encode() + content).hexdigest().encode() + b"\n"


def _content(key: str, file: bytes) -> bytes:
    """The content of a file of the cache. Raises ValueError where its checksum does not agree."""
    if not file.startswith(_MARK):
        return file  # of an earlier version, or its first bytes are damaged: its reader checks
    size = len(_head(key, b""))
    if file[:size] != _head(key, file[size:]):
        raise ValueError("the checksum differs")
    return file[size:]
