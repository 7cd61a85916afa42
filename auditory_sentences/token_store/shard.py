"""One shard: an Arrow file with the records and tokens of some clips, checked when it is opened."""

from __future__ import annotations

import json
import mmap
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.manifest import Damaged, Manifest, ShardEntry
from codec.io.errors import UserError, of_system
from codec.io.files import replace_file, sha256_of
from codec.io.terminal import shown
from codec.streams import StreamSpec
from codec.tokens import AudioTokens

RECORD = tuple(one.name for one in fields(Clip) if one.name != "path")

_LATER = ("instruction",)  # texts that shards from before them lack: they are empty there
_TYPES = {"position": pa.int64()} | {name: pa.string() for name in RECORD if name != "position"}
_AGAIN = "restore it from a copy, or run `uniaudio corpus store` with the same corpora again, which makes it anew"


@dataclass(frozen=True, eq=False)
class StoredClip(Clip):
    """A clip with its tokens."""

    # of its recording
    tokens: AudioTokens = field(kw_only=True)


class Shard:
    """A shard, open: only what is read of it is in memory.

    Checked are its checksum, its form, that each stream of a clip has as many ids as its length needs, and their range.

    Args:
        folder: Of the store.
        entry: Says which file it is.
        manifest: The entry's.

    Raises:
        Damaged: It is not what was written; the message names the file, and the clip where it is one's fault.
        UserError: It may not be read.
    """

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.path, self.fingerprint, self._streams = folder / entry.file, manifest.fingerprint, manifest.streams
        self._table = _open(self.path, entry)
        for name in set(_LATER) - set(self._table.column_names):
            self._table = self._table.append_column(name, pa.array([""] * self._table.num_rows, pa.string()))
        self._check_form()
        self.num_samples: list[int] = self._table["num_samples"].to_pylist()
        if len(self) != entry.clips or sum(self.num_samples) != entry.samples:
            raise self._refusal("holds not the clips that the store lists")
        self._ids, self._ends = {}, {}  # stream -> ids of all clips one after the other, (n,); where each clip's end
        for stream in self._streams:
            name = stream.name
            lists = self._table[name].combine_chunks()
            lists = lists if isinstance(lists, pa.ListArray) else pa.concat_arrays(lists.chunks)
            offsets = lists.offsets.to_numpy()
            self._ids[name] = lists.values.to_numpy(zero_copy_only=False)[offsets[0] :]
            self._ends[name] = offsets[1:] - offsets[0]
            for row, (samples, size) in enumerate(zip(self.num_samples, np.diff(offsets), strict=True)):
                frames, rest = divmod(int(size), stream.codebooks)
                # Tokenizers differ by a frame at a clip's end; what damage does is not so small.
                if samples < 1 or rest or abs(frames - samples * stream.rate / manifest.sample_rate) > 1:
                    raise self._refusal(
                        f"the clip {self.ids[row]!r} of {samples} samples has {size} {name} ids, not "
                        f"{stream.codebooks} for each frame"
                    )
        self.check_codes(self._streams)

    def __len__(self) -> int:
        return self._table.num_rows

    @property
    def ids(self) -> list[str]:
        """Of the clips, in their order."""
        return self._columns["id"]

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        """The records' fields, labels and parts as JSON."""
        return {name: self._table[name].to_pylist() for name in RECORD}

    def clips(self, paths: Sequence[str]) -> list[Clip]:
        """The records as clips whose recordings are at `paths`."""
        columns = dict(self._columns)
        columns["labels"] = [self._json(text, dict) for text in columns["labels"]]
        columns["parts"] = [tuple(self._json(text, list)) for text in columns["parts"]]
        try:
            return [
                Clip(path=path, **dict(zip(RECORD, values, strict=True)))
                for path, *values in zip(paths, *columns.values(), strict=True)
            ]
        except UserError as error:
            raise self._refusal(str(error)) from error

    def is_of(self, row: int, clip: Clip) -> bool:
        """Whether the record in that row is the clip's, wherever its recording lies."""
        for name, column in self._columns.items():
            now, value = getattr(clip, name), column[row]
            if name == "labels":
                now, value = (now, self._json(value, dict)) if now or value != "{}" else ({}, {})
            elif name == "parts":
                now, value = (list(now), self._json(value, list)) if now or value != "[]" else ([], [])
            if now != value:
                return False
        return True

    @property
    def paths(self) -> list[str] | None:
        """Where the recordings were, in shards of format 1; None in others."""
        return self._table["path"].to_pylist() if "path" in self._table.column_names else None

    def tokens(self, row: int) -> AudioTokens:
        """The tokens of the clip in that row."""
        made = {}
        for stream in self._streams:
            ends = self._ends[stream.name]
            start = ends[row - 1] if row else 0
            ids = torch.tensor(self._ids[stream.name][start : ends[row]], dtype=torch.int64)
            made[stream.name] = ids.view(stream.codebooks, -1)
        return AudioTokens(made, self.num_samples[row], self.fingerprint)

    def check_codes(self, streams: Sequence[StreamSpec]) -> None:
        """Raise UserError that names shard and clip where an id is below 0 or none of its stream's codes."""
        for stream in streams:
            ids, size = self._ids[stream.name], 2**31 if stream.codes is None else stream.codes
            if len(ids) and (ids.min() < 0 or ids.max() >= size):
                at = int(np.flatnonzero((ids < 0) | (ids >= size))[0])
                clip = self.ids[int(np.searchsorted(self._ends[stream.name], at, side="right"))]
                has = "ids count from 0" if stream.codes is None else f"the tokenizer has 0 to {size - 1}"
                raise self._refusal(f"the clip {clip!r} holds the {stream.name} id {int(ids[at])}, and {has}")

    def _check_form(self) -> None:
        try:
            self._table.validate(full=True)
        except pa.ArrowException as error:
            raise self._refusal(f"its columns are no data that Arrow can read ({error})") from error
        names = {stream.name for stream in self._streams}
        for known in _schema(self._streams):
            place = self._table.schema.get_all_field_indices(known.name)
            if len(place) != 1 or self._table.schema.field(place[0]).type != known.type:
                raise self._refusal(f"has no column {known.name!r} of type {known.type}")
            column = self._table[known.name]
            inner = sum(chunk.values.null_count for chunk in column.chunks) if known.name in names else 0
            if column.null_count or inner:
                raise self._refusal(f"values of the column {known.name!r} are missing")

    def _json(self, text: str, kind: type) -> Any:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise self._refusal(f"labels or parts of a clip are {shown(text)}")
        return value

    def _refusal(self, fault: str) -> Damaged:
        return Damaged(f"{self.path}: damaged shard: {fault}; {_AGAIN}")


def write_shard(
    path: Path, clips: Sequence[Clip], tokens: Sequence[AudioTokens], streams: Sequence[StreamSpec]
) -> ShardEntry:
    """Write clips with their tokens into a file, all of it or nothing.

    Args:
        path: Of the file, named as a shard is.
        clips: Their records.
        tokens: Of each clip.
        streams: Of the tokenizer.

    Returns:
        What the manifest is to say of it.
    """
    schema = _schema(streams)
    columns: dict[str, Any] = {name: [getattr(clip, name) for clip in clips] for name in RECORD}
    columns["labels"] = [json.dumps(clip.labels) for clip in clips]
    columns["parts"] = [json.dumps(clip.parts) for clip in clips]
    columns["num_samples"] = [clip.num_samples for clip in tokens]
    for stream in streams:
        ids = [clip[stream.name].flatten().to(torch.int32).numpy() for clip in tokens]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int32)
        columns[stream.name] = pa.ListArray.from_arrays(offsets, np.concatenate([np.zeros(0, np.int32), *ids]))
    table = pa.table(columns, schema=schema)
    with replace_file(path) as temporary:
        with temporary.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(table)
        size, checksum = temporary.stat().st_size, sha256_of(temporary)
    samples = sum(columns["num_samples"])
    return ShardEntry(file=path.name, bytes=size, sha256=checksum, clips=len(clips), samples=samples)


def _schema(streams: Sequence[StreamSpec]) -> pa.Schema:
    """Columns of a shard: the records, the clips' lengths, and the ids of each stream under its name."""
    tokens = {"num_samples": pa.int64()} | {stream.name: pa.list_(pa.int32()) for stream in streams}
    return pa.schema([(name, _TYPES[name]) for name in RECORD] + list(tokens.items()))


def _open(path: Path, entry: ShardEntry) -> pa.Table:
    """The table in a file, mapped into memory, once its checksum has been found right."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise UserError(f"{path}: is no ordinary file; {_AGAIN}")
        if info.st_size != entry.bytes or sha256_of(path) != entry.sha256:
            raise Damaged(f"{path}: damaged: this shard is not what was written (its checksum differs); {_AGAIN}")
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{path}: this shard is missing; {_AGAIN}") from error
    except (pa.ArrowException, ValueError) as error:  # an empty file cannot be mapped
        raise Damaged(f"{path}: damaged: this shard is no Arrow file ({error}); {_AGAIN}") from error
    except OSError as error:
        raise of_system(error, path) from error
