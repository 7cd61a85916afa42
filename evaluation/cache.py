"""The cache of what a model said, a codec decoded and a judge heard: a re-run or a kill costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codec.errors import UserError


def key_of(**parts: Any) -> str:
    """Stable key of named plain values: the same on every machine and day."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def bytes_key(*arrays: Any) -> str:
    """Stable key of numpy arrays: type, shape and content."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:32]


class Cache:
    """Bytes under keys, one file each, written atomically.

    folder: where new entries go; others: further folders that are only read
    """

    def __init__(self, folder: str | Path, others: Sequence[str | Path] = ()) -> None:
        self.folder = Path(folder)
        self._folders = [self.folder, *map(Path, others)]
        self.hits = self.misses = 0
        for other in map(Path, others):
            if not other.is_dir():
                raise UserError(f"{other}: no such folder of cached outputs; give the output folder of an earlier run")

    def get(self, key: str) -> bytes | None:
        """The entry, None where there is none."""
        for folder in self._folders:
            try:
                content = (folder / key[:2] / key).read_bytes()
            except FileNotFoundError:
                continue
            self.hits += 1
            return content
        self.misses += 1
        return None

    def put(self, key: str, content: bytes) -> None:
        """Store the entry: all of it or nothing, also when the process is killed or another writes the same."""
        path = self.folder / key[:2] / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{key}.{os.getpid()}.tmp")
        temporary.write_bytes(content)
        temporary.replace(path)

    def get_json(self, key: str) -> Any:
        """The entry as a plain value, None where there is none."""
        content = self.get(key)
        return None if content is None else json.loads(content)

    def put_json(self, key: str, value: Any) -> None:
        self.put(key, json.dumps(value).encode())
