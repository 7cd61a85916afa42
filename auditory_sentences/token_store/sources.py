"""The recordings that a shard was made of: what tells a replaced file, and recognises one that was moved."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from auditory_sentences.token_store.manifest import Damaged, ShardEntry
from codec.io.errors import UserError, of_system
from codec.io.files import sha256_of, write_text
from codec.io.reading import read_json

_AGAIN = "run `uniaudio corpus store` with the same corpora again, which writes it anew"


@dataclass(frozen=True)
class Source:
    """A clip's recording as it was when it was encoded."""

    # of the clip
    id: str
    # of the recording, absolute
    path: str
    # what the system says of the file: its size and the times of its last changes, in ns; compared first
    state: str = ""
    # of the file's content; "" for a clip that could not be read, which the shard does not hold
    sha256: str = ""

    @property
    def stored(self) -> bool:
        """Whether the shard holds the clip."""
        return bool(self.sha256)

    @property
    def changed_at(self) -> int:
        """When the file was last written, moved or given other permissions, in ns."""
        return max(map(int, self.state.split()[1:]))


def measure(clip_id: str, path: str, known: Source | None = None) -> Source:
    """What a recording is now.

    Args:
        clip_id: Of its clip.
        path: Of the recording.
        known: What it was; saves reading it where the system says that it is the same file, unchanged.

    Raises:
        UserError: It cannot be read.
    """
    try:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{path}: is no ordinary file; give a sound file")
        state = f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"
        if known is not None and (known.path, known.state) == (path, state):
            return known
        return Source(clip_id, path, state, sha256_of(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise of_system(error, path) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{path!r}: not a name that a file can have; correct it") from error


def sources_path(folder: Path, entry: ShardEntry) -> Path:
    """Where the list of a shard's recordings lies."""
    return folder / f"sources-{entry.number:05d}.json"


def write_sources(folder: Path, entry: ShardEntry, sources: list[Source]) -> None:
    """Write what the clips of a shard were made of.

    Args:
        folder: Of the store.
        entry: Of the shard.
        sources: Of its clips in their order, those included that could not be read.
    """
    values = {"shard": entry.sha256, "clips": [list(astuple(source)) for source in sources]}
    lines = ",\n".join(json.dumps(row) for row in values["clips"])
    text = f'{{"hash": "{_hash(values)}", "shard": "{entry.sha256}", "clips": [\n{lines}\n]}}\n'
    write_text(sources_path(folder, entry), text)


def read_sources(folder: Path, entry: ShardEntry) -> list[Source]:
    """What `write_sources` wrote.

    Raises:
        Damaged: It is missing, damaged or of another shard.
        UserError: It may not be read.
    """
    path = sources_path(folder, entry)
    if not os.path.lexists(path):
        raise Damaged(f"{path}: missing; {_AGAIN}")
    try:
        values = read_json(path, "list of recordings", _AGAIN)
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # it may be whole, and cannot be had now
            raise
        raise Damaged(str(error)) from error
    if not isinstance(values, dict) or values.pop("hash", None) != _hash(values):
        raise Damaged(f"{path}: damaged; {_AGAIN}")
    if values.get("shard") != entry.sha256:
        raise Damaged(f"{path}: is not of the shard that {entry.file} is now; {_AGAIN}")
    rows = values.get("clips")
    if not isinstance(rows, list) or any(not isinstance(row, list) or [*map(type, row)] != [str] * 4 for row in rows):
        raise Damaged(f"{path}: lists no recordings; {_AGAIN}")
    return [Source(*row) for row in rows]


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
