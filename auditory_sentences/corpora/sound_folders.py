"""Folders of sound files as `datasets` documents them: splits by names, words in metadata.csv or metadata.jsonl."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditory_sentences.corpora.rows import address_of
from auditory_sentences.corpora.sound_files import files_below, is_sound
from auditory_sentences.corpora.table import is_file
from codec.io.errors import UserError
from codec.io.reading import read_json_lines, read_table

_METADATA = ("metadata.csv", "metadata.jsonl")
_DATA = (".parquet", ".arrow", ".zip", ".tar", ".gz", ".tgz", ".zst", ".xz", ".bz2")  # what `datasets` must open
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}


@dataclass(frozen=True)
class Sound:
    """A sound file of the folder."""

    # where it is spoken of, for messages
    where: str
    # what is said of it: column -> value
    row: Mapping[str, Any]
    # of the file
    path: Path
    # the path within the folder, where it lies there
    name: str


def is_sound_folder(folder: Path) -> bool:
    """Whether a folder holds sound files, and no data that `datasets` alone can open."""
    if not folder.is_dir():
        return False
    names = [path.name for path in files_below(folder)]
    data = any(name.lower().endswith(_DATA) or name == "dataset_info.json" for name in names)
    return any(map(is_sound, names)) and not data


def read_sound_folder(folder: Path, split: str) -> tuple[list[str], list[Sound]]:
    """(names of the columns, sounds) of a split.

    Where metadata.csv or metadata.jsonl lie, beside the sounds or above them, their rows are the dataset, and
    `file_name` is relative to them. Otherwise every sound file is a row, and the folders that hold them, where there
    are several at one depth, are the column `label`. A folder or else a file with train, dev, test or the like in its
    name is of that split; where there is none of these, all are of train.

    Raises:
        UserError: There is no such split, or something is wrong with the metadata.
    """
    files = [path for path in files_below(folder) if is_sound(path.name)]
    lists = [path for path in files_below(folder) if path.name in _METADATA]
    sounds = list(_listed(lists, folder)) if lists else _labelled(files, folder)
    names = ["audio", *dict.fromkeys(name for sound in sounds for name in sound.row if name != "audio")]
    splits = _splits(sounds)
    wanted = _SPLIT_OF.get(split, split)
    chosen = [sound for sound, found in zip(sounds, splits, strict=True) if found == wanted]
    if not chosen:
        known = ", ".join(name for name in _SPLITS if name in splits) or "sounds that no metadata name"
        raise UserError(f"{folder}: has no split {split!r}, only {known}")
    if lists and (left := len({path.resolve() for path in files} - {sound.path.resolve() for sound in sounds})):
        warnings.warn(f"{folder}: {left} sound files that no metadata name are left out", stacklevel=2)
    return names, chosen


def _listed(lists: list[Path], folder: Path) -> Iterator[Sound]:
    """The sounds that metadata name."""
    if len({path.parent for path in lists}) < len(lists):
        raise UserError(f"{lists[0].parent}: holds both {_METADATA[0]} and {_METADATA[1]}; remove one")
    for path in lists:
        if path.suffix == ".csv":
            names, rows = read_table(path)
        else:
            rows = list(read_json_lines(path))
            names = list(dict.fromkeys(name for _, row in rows for name in row))
        if "file_name" not in names:
            raise UserError(f"{path}: has no column 'file_name', only {', '.join(names)}; name the files in one")
        for where, row in rows:
            name = row.get("file_name")
            if not isinstance(name, str) or not name.strip():
                raise UserError(f"{where}: file_name is empty or no text; fill in the file's name")
            file = path.parent / address_of(name.strip(), where)
            is_file(file, where)
            yield Sound(
                where, {key: value for key, value in row.items() if key != "file_name"}, file, _name(file, folder)
            )


def _labelled(files: list[Path], folder: Path) -> list[Sound]:
    """All sounds, with the name of their folder as label, where that tells some from others."""
    labels, depths = {path.parent.name for path in files}, {len(path.parts) for path in files}
    tells = len(labels) > 1 and len(depths) == 1
    return [Sound(str(path), {"label": path.parent.name} if tells else {}, path, _name(path, folder)) for path in files]


def _splits(sounds: list[Sound]) -> list[str | None]:
    """Split of every sound that has one, by the names of folders, or else by those of files."""
    folders = [Path(sound.name).parent.parts for sound in sounds]
    files: list[tuple[str, ...]] = [(Path(sound.name).stem,) for sound in sounds]
    for names in (folders, files):
        found = [
            next((_SPLIT_OF[word] for part in parts for word in _words(part) if word in _SPLIT_OF), None)
            for parts in names
        ]
        if any(found):
            return found
    return ["train"] * len(sounds)


def _words(name: str) -> list[str]:
    return re.split(r"[-._ 0-9]+", name)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
