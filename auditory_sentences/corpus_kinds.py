"""The kinds of corpora, each a description that yields clips."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from auditory_sentences.clip import Clip
from codec.errors import UserError

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROW_FIELDS = ("id", "kind", "split", "text", "caption", "speaker", "group", "position", "licence", "source")
_ENDINGS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}


@dataclass(frozen=True)
class ClipsFolder:
    """A folder with clips.jsonl; audio paths in it are relative to the folder."""

    path: Path
    name: str = ""

    def clips(self) -> Iterator[Clip]:
        for where, values in _json_lines(self.path / "clips.jsonl"):
            check_keys(values, Clip, where)
            values["path"] = str(self.path / str(values["path"]))
            if isinstance(values.get("parts"), list):
                values["parts"] = tuple(values["parts"])
            yield Clip(**values)


@dataclass(frozen=True)
class Table:
    """A CSV or JSONL file with a row per clip.

    columns: our name -> the table's, where they differ. Ours: file (needed), id (else the file's name), kind, split,
        text, caption, speaker, group, position, licence, source; whichever there are
    labels: further columns that are exact attributes of the clip
    audio_folder: what file names are relative to; the table's own folder if not given
    clip_kind, split, licence, source: of all clips, where the table has no such column
    """

    path: Path
    name: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    audio_folder: Path | None = None
    clip_kind: str = "speech"
    split: str = "train"
    licence: str = ""
    source: str = ""

    def clips(self) -> Iterator[Clip]:
        folder = self.audio_folder or self.path.parent
        for where, row in self._rows():
            column = self.columns.get("file", "file")
            if not row.get(column):
                raise UserError(f"{where}: column {column!r} with the audio file is empty or missing; fill it in")
            path = folder / str(row[column])
            if not path.is_file():
                raise UserError(f"{where}: the audio file {path} does not exist; correct the name or audio_folder")
            yield _clip_of_row(self, row, where, str(path), default_id=str(row[column]))

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where it stands, row); columns are checked against the description first."""
        if self.path.suffix.lower() in (".jsonl", ".ndjson"):
            rows = list(_json_lines(self.path))
            names = list(dict.fromkeys(name for _, row in rows for name in row))
        elif self.path.suffix.lower() in (".csv", ".tsv"):
            try:
                with open_text(self.path) as file:
                    reader = csv.DictReader(file, delimiter="\t" if self.path.suffix.lower() == ".tsv" else ",")
                    names = list(reader.fieldnames or [])
                    rows = [(f"{self.path}, line {reader.line_num}", row) for row in reader]
            except (csv.Error, UnicodeDecodeError) as error:
                raise UserError(f"{self.path}: not a CSV file ({error}); save it as CSV in UTF-8") from error
        else:
            raise UserError(f"{self.path}: a table ends in .csv, .tsv or .jsonl; save it as one of these")
        _check_columns(self, names, needed="file")
        for where, row in rows:
            if None in row or None in row.values() and self.path.suffix.lower() in (".csv", ".tsv"):
                raise UserError(
                    f"{where}: has not as many cells as the first line has columns; quote cells with commas"
                )
            yield where, row


@dataclass(frozen=True)
class HubDataset:
    """A dataset that `datasets` can load: a folder it saved, a folder of parquet files, or an id on the hub.

    source_split: which of the dataset's own splits to read; `split` is what it is here (train, dev or test)
    config: the dataset's configuration, where it has several
    columns, labels, clip_kind, licence, source: as in Table; the audio column is called "audio" unless columns say else
    audio_folder: where the sound of datasets that hold it in their rows is unpacked, one file a row
    """

    path: str
    source_split: str
    name: str = ""
    config: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    audio_folder: Path | None = None
    clip_kind: str = "speech"
    split: str = "train"
    licence: str = ""
    source: str = ""

    def clips(self) -> Iterator[Clip]:
        import datasets  # seconds to import, and most corpora need none of it

        data = self._load()
        _check_columns(self, data.column_names, needed="audio")
        audio = self.columns.get("audio", "audio")
        used = {self.columns.get(name, name) for name in (*_ROW_FIELDS, "audio")} | set(self.labels)
        data = data.select_columns([name for name in data.column_names if name in used])
        # decode=False hands out the stored bytes or path: soundfile decodes them later
        data = data.cast_column(audio, datasets.Audio(decode=False))
        classes = {n: f for n, f in data.features.items() if isinstance(f, datasets.ClassLabel)}
        for i, row in enumerate(data):
            where = f"{self.path}, split {self.source_split}, row {i}"
            for column, feature in classes.items():
                row[column] = feature.int2str(row[column]) if row[column] is not None else ""
            yield _clip_of_row(self, row, where, self._file(row[audio], i, where), default_id=f"{i:07d}")

    def _load(self):
        import datasets

        folder = Path(self.path)
        try:
            if (folder / "dataset_dict.json").is_file():
                saved = datasets.load_from_disk(folder)
                if self.source_split not in saved:
                    raise UserError(f"{folder}: has no split {self.source_split!r}, only {', '.join(saved)}")
                return saved[self.source_split]
            if (folder / "state.json").is_file():
                return datasets.load_from_disk(folder)
            return datasets.load_dataset(self.path, self.config, split=self.source_split)
        except (OSError, ValueError) as error:  # datasets' and the hub's own errors derive from these
            said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"{self.path}: `datasets` cannot load it ({said}); check path and source_split") from error

    def _file(self, audio: dict[str, Any] | None, row: int, where: str) -> str:
        """The row's sound as a file, unpacked where the row holds it."""
        if not audio or not audio["bytes"]:
            if audio and audio["path"] and Path(audio["path"]).is_file():
                return str(Path(audio["path"]).absolute())
            raise UserError(f"{where}: holds no sound and no path to a file that exists; remove the row")
        if self.audio_folder is None:
            raise UserError(f"{self.path}: holds the sound in its rows; name a folder to unpack it to as audio_folder")
        ending = Path(audio["path"] or "").suffix or _ENDINGS.get(audio["bytes"][:4], ".mp3")
        path = self.audio_folder / f"{self.source_split}-{row:07d}{ending}"
        if not path.is_file() or path.stat().st_size != len(audio["bytes"]):
            self.audio_folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(audio["bytes"])
        return str(path)


@dataclass(frozen=True)
class SpokenDigits:
    """Files named {digit}_{speaker}_{take}.wav, as in the Free Spoken Digit Dataset; takes 45 to 49 are dev."""

    path: Path
    name: str = ""
    licence: str = "CC-BY-SA-4.0"
    source: str = "Free Spoken Digit Dataset"

    def clips(self) -> Iterator[Clip]:
        files = sorted(existing_folder(self.path).glob("*.wav"))
        if not files:
            raise UserError(f"{self.path}: holds no .wav file; give the folder with the recordings")
        for file in files:
            found = re.fullmatch(r"(\d)_([^_]+)_(\d+)", file.stem)
            if not found:
                raise UserError(f"{file}: is not named DIGIT_SPEAKER_TAKE.wav; rename it or move it elsewhere")
            digit, speaker, take = found.groups()
            yield Clip(
                id=file.stem, path=str(file), kind="speech", split="dev" if 45 <= int(take) <= 49 else "train",
                text=DIGITS[int(digit)], speaker=speaker, labels={"content": "digits"}, licence=self.licence,
                source=self.source,
            )  # fmt: skip


def _clip_of_row(spec: Table | HubDataset, row: Mapping[str, Any], where: str, path: str, default_id: str) -> Clip:
    """The clip that a row of a table or dataset describes."""
    values: dict[str, Any] = {"kind": spec.clip_kind, "split": spec.split, "licence": spec.licence}
    values |= {"source": spec.source, "id": default_id}
    for name in _ROW_FIELDS:
        value = row.get(spec.columns.get(name, name))
        if value is not None and value != "":
            values[name] = str(value).strip()
    try:
        values["position"] = int(values.get("position", 0))
    except ValueError as error:
        raise UserError(f"{where}: position {values['position']!r} is not a whole number; correct it") from error
    labels = {name: str(row[name]).strip() for name in spec.labels if row.get(name) not in (None, "")}
    try:
        return Clip(path=path, labels=labels, **values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_columns(spec: Table | HubDataset, names: Sequence[str], needed: str) -> None:
    """Every column that the description names must exist; a column that nothing names is left alone."""
    known = (needed, *_ROW_FIELDS)
    for ours in spec.columns:
        if ours not in known:
            raise UserError(
                f"{spec.path}: columns has {ours!r}{_nearest(ours, known)}; its keys are {', '.join(known)}"
            )
    for column in (spec.columns.get(needed, needed), *spec.columns.values(), *spec.labels):
        if column not in names:
            raise UserError(
                f"{spec.path}: has no column {column!r}{_nearest(column, names)}; it has {', '.join(map(str, names))}, "
                "and `columns` says which is which"
            )


def check_keys(values: Mapping[str, Any], kind: type, where: str) -> None:
    """Every key must be a field of the class, and fields without a default must be there."""
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{_nearest(key, known)}; the keys are {', '.join(known)}")
    for name, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and name not in values:
            raise UserError(f"{where}: {name} is missing; add it")


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, object) of every line of a JSONL file that is not blank."""
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path}, line {number}"
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise UserError(f"{where}: must be a JSON object, not {line.strip()[:60]}")
                yield where, values
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); correct the line") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not text in UTF-8 ({error}); save it as UTF-8") from error


def open_text(path: Path):
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path of the corpus") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path of the corpus") from error


def existing_folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; check the path of the corpus")
    return path


def _nearest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
