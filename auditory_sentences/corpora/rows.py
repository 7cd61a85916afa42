"""Rows of tables and datasets as clips: which column is which, and what a cell may hold."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from auditory_sentences.corpora.clip import Clip, Kind, Split
from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.io.terminal import printable, shown

FIELDS = ("id", "kind", "split", "text", "caption", "speaker", "group", "position", "licence", "source")
# What others call our columns. A name counts in any case, with blanks or hyphens for underscores.
_FILES = ("file_name", "filename", "file_path", "filepath", "path", "audio_filepath", "audio_file", "audio_path", "wav")
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "file": (*_FILES, "audio"),
    "audio": (*_FILES, "file", "sound", "speech"),
    "text": ("transcript", "transcription", "sentence", "normalized_text", "normalised_text", "utterance"),
    "caption": ("captions", "description"),
    "speaker": ("speaker_id", "client_id"),
    "licence": ("license",),
}

Columns = dict[str, str]  # our name of a column -> the table's
Rows = Iterable[tuple[str, Mapping[str, Any], str, str]]  # where it stands, the row, its audio file, the default id


class RowSource:
    """What is read of the description of a corpus that has rows: a dataclass, whose fields these are among."""

    path: Path | str
    columns: Columns
    labels: tuple[str, ...]
    clip_kind: Kind
    split: Split
    licence: str
    source: str


def find_columns(spec: RowSource, names: Sequence[str], needed: str, sure: Mapping[str, str] | None = None) -> Columns:
    """Which of the table's columns is which of ours.

    `columns` of the description decides; then our own names; then a name that is known to mean the same, of which a
    warning tells.

    Args:
        spec: The description.
        names: Of the table's columns.
        needed: Our name of the column with the sound.
        sure: What the table itself says of its columns: our name -> the table's.

    Raises:
        UserError: A column is named and absent, two could be meant, or the sound is in none.
    """
    known = (needed, *FIELDS)
    for ours in spec.columns:
        if ours not in known:
            raise UserError(f"{spec.path}: columns has {ours!r}{nearest(ours, known)}; its keys are {', '.join(known)}")
    for column in (*spec.columns.values(), *spec.labels):
        if column not in names:
            raise _no_column(spec, column, names)
    columns: Columns = {}
    guessed = []
    for ours in known:
        exact = spec.columns.get(ours) or (ours if ours in names else (sure or {}).get(ours))
        others = [] if exact else _meant(spec, ours, names)
        if len(others) > 1:
            raise UserError(
                f"{spec.path}: {ours} could be any of the columns {_listed(others)}; say which under `columns`, for "
                f"example `columns: {{{ours}: {others[0].strip()}}}`"
            )
        if exact or others:
            columns[ours] = exact or others[0]
            guessed += [f"{other!r} as {ours}" for other in others]
    if needed not in columns:
        raise _no_column(spec, needed, names)
    if guessed:
        _warn(f"{spec.path}: takes the column {', '.join(guessed)}; `columns` can say otherwise")
    for name, ours in _near_misses(spec, names, columns):
        _warn(f"{spec.path}: the column {name!r} is not used; if it is the {ours}, say so under `columns`")
    return columns


def clips_of_rows(spec: RowSource, rows: Rows, columns: Columns, names: Sequence[str]) -> Iterator[tuple[str, Clip]]:
    """(where it stands, clip) of every row.

    A warning tells where the rows give neither text nor caption though they have columns that nobody uses.

    Args:
        spec: The description.
        rows: Of the table.
        columns: As `find_columns` gives them.
        names: Of all of the table's columns.

    Raises:
        UserError: A row is no clip; the message names it and says why.
    """
    wordless = True
    for where, row, path, default_id in rows:
        clip = _clip_of_row(spec, row, columns, where, path, default_id)
        wordless = wordless and not clip.text and not clip.caption
        yield where, clip
    unused = [name for name in names if name not in columns.values() and name not in spec.labels]
    if wordless and unused:
        _warn(
            f"{spec.path}: no row has a text or a caption, and these columns are not used: {_listed(unused)}; if one "
            "is meant, say so under `columns` or `labels`"
        )


def address_of(name: str, where: str) -> str:
    """The name of an audio file as it was given; `where` says in which place, for messages.

    Raises:
        UserError: It cannot be a file's on this machine.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        raise UserError(f"{where}: {shown(name)} is an address, not a file; download it, and give the file's name")
    if "\0" in name or "\n" in name:
        raise UserError(f"{where}: {shown(name)} is not a name that a file can have; correct it")
    return name


def _clip_of_row(
    spec: RowSource, row: Mapping[str, Any], columns: Columns, where: str, path: str, default_id: str
) -> Clip:
    values: dict[str, Any] = {"kind": spec.clip_kind, "split": spec.split, "licence": spec.licence}
    values |= {"source": spec.source, "id": default_id}
    for name in FIELDS:
        if name in columns and (text := text_of(row.get(columns[name]), where, columns[name])):
            values[name] = text
    if "position" in values:
        if not re.fullmatch(r"[0-9]{1,18}", values["position"]):
            raise UserError(f"{where}: position {shown(values['position'])} is not a whole number from 0; correct it")
        values["position"] = int(values["position"])
    labels = {name: text for name in spec.labels if (text := text_of(row.get(name), where, name))}
    try:
        return Clip(path=path, labels=labels, **values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def text_of(value: Any, where: str, column: str) -> str:
    """The text in a cell: "" for none, and a finite number as it is written.

    Args:
        value: Of the cell.
        where: Its row stands, for messages.
        column: Of the cell, for messages.

    Raises:
        UserError: It is anything else.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value) if value.is_integer() and abs(value) < 1e15 else value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UserError(f"{where}: {column!r} must be text, not {shown(value)}; put it in quotation marks, or leave it out")


def _meant(spec: RowSource, ours: str, names: Sequence[str]) -> list[str]:
    """The columns that can only mean ours, though they are called otherwise."""
    free = [name for name in names if name not in spec.columns.values() and name not in spec.labels]
    same = [name for name in free if _plain(name) == ours]
    return same or [name for name in free if _plain(name) in OTHER_NAMES.get(ours, ())]


def _near_misses(spec: RowSource, names: Sequence[str], columns: Columns) -> Iterator[tuple[str, str]]:
    """(a column that is not used, which of ours it may be meant for)"""
    used = {*columns.values(), *spec.labels}
    written = Counter(_plain(name) for name in names)
    for name in names:
        if name in used:
            continue
        if _plain(name) in FIELDS and written[_plain(name)] > 1:  # `Text` beside `text`
            yield name, _plain(name)
            continue
        for ours in ("text", "caption", "speaker", "split", "kind"):
            like = (ours, *OTHER_NAMES.get(ours, ()))
            if ours not in columns and get_close_matches(_plain(name), like, 1, 0.8 if len(name) > 4 else 0.7):
                yield name, ours
                break


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip("\ufeff \t").casefold())


def _no_column(spec: RowSource, column: str, names: Sequence[str]) -> UserError:
    return UserError(
        f"{spec.path}: has no column {column!r}{nearest(column, names)}; it has {_listed(names)}, and `columns` says "
        "which is which"
    )


def _listed(names: Sequence[str]) -> str:
    shown_names = ", ".join(printable(name if name == name.strip() else repr(name)) for name in names[:20])
    return f"{shown_names}, ..." if len(names) > 20 else shown_names


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
