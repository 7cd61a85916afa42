"""Corpora that are tables: CSV, TSV or JSONL with a row per clip."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from auditory_sentences.corpora.clip import Clip, Kind, Split
from auditory_sentences.corpora.rows import Rows, RowSource, address_of, clips_of_rows, find_columns
from codec.io.errors import UserError
from codec.io.numbers import Range
from codec.io.reading import read_json_lines, read_table
from codec.io.terminal import shown

JSONL_ENDINGS = (".jsonl", ".ndjson")
TABLE_ENDINGS = (".csv", ".tsv", *JSONL_ENDINGS)

Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Table(RowSource):
    """A CSV, TSV or JSONL file with a row per clip."""

    # of the file
    path: Path
    # of the corpus, put before the ids of its clips
    name: str = ""
    # our name of a column -> the table's, where they differ. Ours: file (needed), id (else the file's name), kind,
    # split, text, caption, speaker, group, position, licence, source; whichever there are
    columns: dict[str, str] = field(default_factory=dict)
    # further columns that are exact attributes of the clip
    labels: tuple[str, ...] = ()
    # what file names are relative to; the table's own folder if not given
    audio_folder: Path | None = None
    # of all clips, where the table has no column `kind`
    clip_kind: Kind = "speech"
    # of all clips, where the table has no such column
    split: Split = "train"
    # share of the files, by a hash of their names, that are dev instead: always the same ones, whatever else the table
    # holds; 0.0625 are those whose SHA-1 begins with the digit 0
    dev_share: Share = 0.0
    # of all clips, where the table has no such column
    licence: str = ""
    # of all clips, where the table has no such column
    source: str = ""

    def clips(self) -> Iterator[tuple[str, Clip]]:
        """(where it stands, clip) of every row.

        A row whose file is missing is a clip like any other, which its reader reports.

        Raises:
            UserError: A row is no clip, or the files of all rows are missing; the message names the first.
        """
        names, rows = read_rows(self.path)
        columns = find_columns(self, names, needed="file")
        for where, clip in clips_of_rows(self, self._files(rows, columns["file"]), columns, names):
            held_out = "split" not in columns and name_share(clip.path) < self.dev_share
            yield where, replace(clip, split="dev") if held_out else clip

    def _files(self, rows: Sequence[tuple[str, Mapping[str, Any]]], column: str) -> Rows:
        folder = self.audio_folder or self.path.parent
        found, missing, made = 0, "", []
        for where, row in rows:
            name = row.get(column)
            if not isinstance(name, str) or not name.strip():
                said = "is empty or missing" if name is None or isinstance(name, str) else f"holds {shown(name)}"
                raise UserError(f"{where}: column {column!r} with the audio file {said}; fill in the file's name")
            path = folder / address_of(name.strip(), where)
            if is_file(path, where):
                found += 1
            else:
                missing = missing or f"{where}: the audio file {path} does not exist; correct the name or audio_folder"
            made.append((where, row, str(path), name.strip()))
        if missing and not found:
            raise UserError(missing)
        yield from made


def read_rows(path: Path) -> tuple[list[str], Sequence[tuple[str, Mapping[str, Any]]]]:
    """(names of the columns, (where it stands, row) of every row) of a table; its ending says how it is written.

    Raises:
        UserError: It has another ending, or cannot be read; the message names it and the line.
    """
    ending = path.suffix.lower()
    if ending in JSONL_ENDINGS:
        rows = list(read_json_lines(path, "table"))
        return list(dict.fromkeys(name for _, row in rows for name in row)), rows
    if ending in TABLE_ENDINGS:
        return read_table(path)
    raise UserError(f"{path}: a table ends in .csv, .tsv or .jsonl; save it as one of these")


def name_share(path: str) -> float:
    """Where a file's name, without its folder, lies among all names: from 0 to below 1, evenly, by its SHA-1."""
    return int(hashlib.sha1(os.fsencode(Path(path).name)).hexdigest()[:8], 16) / 16**8


def is_file(path: Path, where: str) -> bool:
    """Whether there is such a file.

    Args:
        path: Of the file.
        where: What names it, for messages.

    Raises:
        UserError: It is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:  # whoever reads it says what is wrong
        return False
    if not stat.S_ISREG(mode):
        raise UserError(f"{where}: {path} is no ordinary file; give the name of a file of sound")
    return True
