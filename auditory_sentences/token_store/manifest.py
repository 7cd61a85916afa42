"""store.json: which shards a token store consists of, covered by a hash of its own."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from auditory_sentences.corpora.clip import Clip
from codec.io.errors import UserError, of_system
from codec.io.files import write_text
from codec.io.numbers import Count, Index
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.streams import StreamSpec, plain_values
from codec.tokens import SAMPLE_RATE

FORMAT = 4  # 3, still written where nobody says it, does not say where the tokenizer lies; 2 knew two streams, whose
# numbers of codes it said; 1 also had no hash of itself, no codes, and the path of a recording in its shard. All are
# read.
MANIFEST = "store.json"

_SHARD_NAME = re.compile(r"shard-(\d{5,9})\.arrow")
_SUM = re.compile(r"[0-9a-f]{64}")
_TAKEN = {field.name for field in fields(Clip)} | {"num_samples"}  # names of a shard's other columns


class Damaged(UserError):
    """A file of a store is missing, or is not what was written there: another build makes it anew."""


@dataclass(frozen=True)
class Failure:
    """A clip that is not in the store, and why."""

    # of the clip
    id: str
    # of its recording
    path: str
    # what cannot be read, and what to do about it
    reason: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What the manifest says of a shard.

    Raises:
        UserError: The name is none of a shard, or the checksum none.
    """

    # its name in the store's folder
    file: str
    # size of the file
    bytes: Index
    # of the file's content
    sha256: str
    # how many it holds
    clips: Index
    # length of these together, at the tokenizer's rate
    samples: Index
    # clips that belong into it and could not be read
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        if not _SHARD_NAME.fullmatch(self.file):
            raise UserError(f"a shard is called {self.file!r}, which is no name of a shard in the store's own folder")
        if not _SUM.fullmatch(self.sha256):
            raise UserError(f"the sha256 of shard {self.file} is none: {self.sha256!r}")

    @property
    def number(self) -> int:
        """Counts the shards of a store from 0; it is in the name."""
        return int(self.file.removeprefix("shard-").removesuffix(".arrow"))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What store.json says.

    Raises:
        UserError: Streams or shards are none that a store can have.
    """

    # of the tokenizer
    fingerprint: str
    # of the tokenizer, in the order of generation; the store's columns
    streams: tuple[StreamSpec, ...]
    # of the tokenizer, in Hz
    sample_rate: Count
    # all clips that were given are in the shards or among their failures
    complete: bool
    # in the store's order
    shards: tuple[ShardEntry, ...]
    # the tokenizer's folder (absolute), shipped name or hub id when the store was built; "" where nobody wrote it down
    tokenizer: str = ""

    def __post_init__(self) -> None:
        files = [shard.file for shard in self.shards]
        if not self.streams or len({stream.name for stream in self.streams}) < len(self.streams):
            raise UserError("streams must be one or more, each with a name of its own")
        if any(stream.name in _TAKEN for stream in self.streams):
            raise UserError(f"a stream cannot be called one of {', '.join(sorted(_TAKEN))}")
        if len(set(files)) < len(files):
            twice = next(file for i, file in enumerate(files) if file in files[:i])
            raise UserError(f"the shard {twice} is listed twice")


def read_manifest(folder: Path) -> Manifest | None:
    """What a folder's store.json says; None where there is none.

    Raises:
        UserError: It may not be read, is damaged, or is not of a token store; the message names the file.
    """
    path = folder / MANIFEST
    try:
        path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise of_system(error, path) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(folder)!r}: not a name that a folder can have; check the path") from error
    remedy = "restore it from a copy, or build the store in another folder"
    values = read_json(path, "list of a token store", remedy)
    if not isinstance(values, dict) or "format" not in values:
        raise UserError(f"{path}: not the list of a token store's shards; {remedy}")
    found = values.pop("format")
    if found not in (1, 2, 3, FORMAT) or isinstance(found, bool):
        raise UserError(
            f"{path}: a token store of format {found!r}, and this version reads 1 to {FORMAT}; read it with the "
            "version that wrote it, or build the store in another folder"
        )
    if found == 1:
        values = _of_format_1(values)
    elif values.pop("hash", None) != _hash(values):
        raise UserError(
            f"{path}: damaged or edited: what it says of the store's shards is not what was written; {remedy}"
        )
    if found < 3:
        values = _of_two_streams(values)
    try:
        return parse(Manifest, values, str(path))
    except UserError as error:
        raise UserError(f"{error}; {remedy}") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write store.json, whole or not at all."""
    values = asdict(manifest) | {"streams": [plain_values(stream) for stream in manifest.streams]}
    number = FORMAT
    if not manifest.tokenizer:
        number = 3
        del values["tokenizer"]
    values = json.loads(json.dumps(values))  # lists for tuples, as it will be read
    values = {"format": number, "hash": _hash(values)} | values
    write_text(folder / MANIFEST, json.dumps(values, indent=1) + "\n")


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _of_format_1(values: dict[str, Any]) -> dict[str, Any]:
    """Its shards were null where they were still to be built."""
    for name in ("clips_hash", "clips", "shard_clips"):
        values.pop(name, None)
    shards = values.get("shards")
    if isinstance(shards, list):
        values |= {"shards": [shard for shard in shards if shard is not None], "complete": None not in shards}
    return {"codes": None, "complete": False} | values


def _of_two_streams(values: dict[str, Any]) -> dict[str, Any]:
    """Formats 1 and 2 held ReasoningCodec's two streams."""
    codes = values.pop("codes", None)
    if not (codes is None or (isinstance(codes, list) and len(codes) == 2)):
        codes = [codes, codes]  # refused with what follows
    streams = [
        {"name": name, "rate": rate, "codebooks": 8, "codes": None if codes is None else codes[i]}
        for i, (name, rate) in enumerate((("descriptive", 5.0), ("structural", 12.5)))
    ]
    return {"streams": streams, "sample_rate": SAMPLE_RATE} | values
