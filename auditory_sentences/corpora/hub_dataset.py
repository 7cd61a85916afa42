"""Corpora that the library `datasets` can load, or would: a folder of sound files needs nothing of it."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from auditory_sentences.corpora.clip import Clip, Kind, Split
from auditory_sentences.corpora.rows import Columns, Rows, RowSource, clips_of_rows, find_columns
from auditory_sentences.corpora.sound_folders import is_sound_folder, read_sound_folder
from codec.io.errors import UserError, of_system
from codec.io.files import replace_file
from codec.io.terminal import printable
from codec.io.third_party import RAISED

if TYPE_CHECKING:
    import datasets

_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b".snd": ".au", b"caff": ".caf"}


@dataclass(frozen=True)
class HubDataset(RowSource):
    """A dataset that `datasets` can load."""

    # a folder that it saved, a folder of parquet or of sound files, or an id on the hub
    path: str
    # which of the dataset's own splits to read; `split` is what it is here
    source_split: str
    # of the corpus, put before the ids of its clips
    name: str = ""
    # the dataset's configuration, where it has several
    config: str | None = None
    # our name of a column -> the dataset's, where they differ. Ours: audio (needed), and all of a table's but file
    columns: dict[str, str] = field(default_factory=dict)
    # further columns that are exact attributes of the clip
    labels: tuple[str, ...] = ()
    # where the sound of datasets that hold it in their rows is unpacked, named by its content, so that any number of
    # datasets may share the folder
    audio_folder: Path | None = None
    # of all clips, where the dataset has no column `kind`
    clip_kind: Kind = "speech"
    # of all clips, where the dataset has no such column
    split: Split = "train"
    # of all clips, where the dataset has no such column
    licence: str = ""
    # of all clips, where the dataset has no such column
    source: str = ""

    def clips(self) -> Iterator[tuple[str, Clip]]:
        """(where it stands, clip) of every row.

        Raises:
            UserError: The library cannot load the dataset, or a row is no clip.
        """
        if is_sound_folder(Path(self.path)):
            names, sounds = read_sound_folder(Path(self.path), self.source_split)
            columns = find_columns(self, names, needed="audio")
            rows = ((s.where, s.row, str(s.path), s.name) for s in sounds)
            yield from clips_of_rows(self, rows, columns, names)
            return
        data = self._load()
        names = data.column_names
        columns = find_columns(self, names, "audio", _audio_columns(data))
        yield from clips_of_rows(self, self._rows(data, columns), columns, names)

    def _rows(self, data: datasets.Dataset, columns: Columns) -> Rows:
        import datasets  # seconds to import, and most corpora need none of it

        audio = columns["audio"]
        if not _may_be_sound(data.features[audio]):
            raise UserError(
                f"{self.path}: the column {audio!r} holds {printable(data.features[audio])}, which is no sound; say "
                "under `columns` which column is `audio`"
            )
        with self._explained():
            data = data.select_columns(list(dict.fromkeys([*columns.values(), *self.labels])))
            # decode=False hands out the stored bytes or path: they are decoded later, and not by the library
            data = data.cast_column(audio, datasets.Audio(decode=False))
            classes = {n: f for n, f in data.features.items() if isinstance(f, datasets.ClassLabel)}
            rows = iter(data)
        number = -1
        while True:
            number += 1
            with self._explained():
                row = next(rows, None)
                if row is None:
                    return
                for column, feature in classes.items():  # -1 stands for none
                    row[column] = feature.int2str(row[column]) if row[column] not in (None, -1) else ""
            where = f"{self.path}, split {self.source_split}, row {number}"
            yield where, row, self._file(row[audio], where), f"{number:07d}"

    def _load(self) -> datasets.Dataset:
        import datasets

        folder = Path(self.path)
        if folder.is_absolute() and not folder.is_dir():
            found = "is a file; give the folder it lies in" if folder.exists() else "no such folder; check the path"
            raise UserError(f"{folder}: {found} (a dataset on the hub is called OWNER/NAME)")
        with self._explained(), _quiet(f"loading {self.path}"):
            if (folder / "dataset_dict.json").is_file():
                saved = datasets.load_from_disk(folder)
                if self.source_split not in saved:
                    raise UserError(f"{folder}: has no split {self.source_split!r}, only {', '.join(saved)}")
                return saved[self.source_split]
            if (folder / "state.json").is_file():
                return datasets.load_from_disk(folder)
            return datasets.load_dataset(self.path, self.config, split=self.source_split)

    def _file(self, audio: Mapping[str, Any] | None, where: str) -> str:
        """The row's sound as a file, unpacked where the row holds it."""
        if not audio or not audio["bytes"]:
            if audio and audio["path"] and Path(audio["path"]).is_file():
                return str(Path(audio["path"]).absolute())
            raise UserError(f"{where}: holds no sound and no path to a file that exists; remove the row")
        if self.audio_folder is None:
            raise UserError(f"{self.path}: holds the sound in its rows; name a folder to unpack it to as audio_folder")
        content = audio["bytes"]
        said = re.search(r"\.[A-Za-z0-9]{1,5}$", audio["path"] or "")
        ending = _MAGIC.get(content[:4]) or (said[0].lower() if said else ".mp3")
        path = self.audio_folder / f"{hashlib.sha256(content).hexdigest()[:32]}{ending}"
        if not path.is_file() or path.stat().st_size != len(content):
            with replace_file(path) as temporary:
                temporary.write_bytes(content)
        return str(path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever `datasets` and the libraries below it raise, as one sentence."""
        import datasets
        import pyarrow

        try:
            yield
        except PermissionError as error:
            raise of_system(error) from error
        except (
            *RAISED,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
            tarfile.TarError,
            datasets.exceptions.DatasetsError,
            pyarrow.ArrowException,
        ) as error:
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            said = str(cause).strip() or str(error).strip() or type(cause).__name__
            said = printable(said.splitlines()[0][:300])
            raise UserError(f"{self.path}: `datasets` cannot load it ({said}); {_remedy(error)}") from error


def is_hub_id(path: str) -> bool:
    """Whether a path may be the name of a dataset on the hub, OWNER/NAME.

    A name alone is rather a folder that is not there, for which the hub would be asked in vain, and for long.
    """
    return bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", path))


def _audio_columns(data: datasets.Dataset) -> dict[str, str]:
    """The column of sound, where the dataset says of one that it is."""
    import datasets

    found = [name for name, feature in data.features.items() if isinstance(feature, datasets.Audio)]
    return {"audio": found[0]} if len(found) == 1 else {}


def _may_be_sound(feature: Any) -> bool:
    """Whether the values of a column can be paths or contents of sound files."""
    import datasets

    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    return isinstance(feature, datasets.Audio) or (isinstance(feature, dict) and {"bytes", "path"} <= set(feature))


def _remedy(error: Exception) -> str:
    names = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in names or "gated" in str(error).lower():
        return "ask for access on the dataset's page, and log in with `hf auth login`"
    if names & {"ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "Timeout", "TransportError"}:
        return "check the network and the name, or give a folder"
    return "check path, config and source_split, and that its files are whole"


@contextmanager
def _quiet(doing: str) -> Iterator[None]:
    """One line on the terminal instead of the bars and notes of the libraries."""
    import datasets
    from datasets.utils import logging
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    bars, hub_bars = not datasets.are_progress_bars_disabled(), not are_progress_bars_disabled()
    verbosity, hub_verbosity = logging.get_verbosity(), hub_logging.get_verbosity()
    datasets.disable_progress_bars()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)  # what it calls an error is raised too
    hub_logging.set_verbosity(logging.ERROR)
    try:
        with Console(stderr=True).status(printable(doing)):
            yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub_verbosity)
        if bars:
            datasets.enable_progress_bars()
        if hub_bars:
            enable_progress_bars()
