"""The data set that a task names as its own: where it is, and which of its columns is what."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditory_sentences.corpora.clip import Clip, Kind
from auditory_sentences.corpora.hub_dataset import HubDataset
from auditory_sentences.corpora.read import read_corpora, read_corpus
from codec.io.errors import UserError
from codec.io.numbers import Name
from codec.io.reading import load_json
from codec.io.terminal import shown


@dataclass(frozen=True)
class TaskDataset:
    """A data set whose rows become clips of a task. Their source is its name, which the task's `data.source` names."""

    # of the data set here: begins the ids of its clips, and stands for it in --corpus NAME=FOLDER
    name: Name
    # of all clips
    kind: Kind
    # id on the hub; empty: none there holds sound and texts as `datasets` loads them
    hub: str = ""
    # where a person gets it, and what a folder of it looks like; needed where `hub` is empty
    get: str = ""
    # configuration, where it has several
    config: str | None = None
    # its own split that is read
    source_split: str = "test"
    # our name of a column -> its own: id, text, caption, speaker, audio (auditory_sentences/corpora/hub_dataset.py)
    columns: Mapping[str, str] = field(default_factory=dict)
    # further columns that are exact attributes of a clip
    labels: tuple[str, ...] = ()
    # label -> beginnings of its values: such clips are the test split, all others training; empty: all are test
    test: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # under which it is given away
    licence: str = ""

    def __post_init__(self) -> None:
        if not self.hub and not self.get:
            raise ValueError("a data set needs the key 'hub', or 'get', which says where a person finds it")
        for label in self.test:
            if label not in self.labels:
                raise ValueError(f"'test' speaks of the label {shown(label)}, which 'labels' does not list")

    def clips(self, folder: Path | None, unpacked: Path) -> list[Clip]:
        """All its clips.

        Args:
            folder: In the place of the hub: what `datasets` saved or loads, with the same columns; one table (CSV,
                TSV, JSONL) with them or with our own names for them and a column of files; or a folder with
                clips.jsonl or a YAML description of a corpus, which say everything of their clips themselves.
            unpacked: Where sound is put that lies within rows.

        Raises:
            UserError: The hub or the folder does not give it.
        """
        if folder is not None and not folder.exists():
            raise UserError(f"{folder}: no such folder; give one that holds the data set '{self.name}' (--corpus)")
        if folder is None and not self.hub:
            raise UserError(f"the data set '{self.name}' has to be had by hand ({self.get}); then give --corpus FOLDER")
        if folder is not None and (folder.is_file() or (folder / "clips.jsonl").is_file()):
            clips = read_corpora([folder])
        elif folder is not None and len(tables := _tables(folder)) == 1:
            names = _columns_of(tables[0])
            clips = read_corpus({
                "kind": "table", "path": str(tables[0]), "clip_kind": self.kind, "split": "test",
                "columns": {ours: theirs for ours, theirs in self.columns.items() if theirs in names},
                "labels": [label for label in self.labels if label in names], "licence": self.licence,
            })  # fmt: skip
            clips = [self._placed(clip) for clip in clips]
        else:
            path = self.hub if folder is None else str(folder.absolute())
            described = HubDataset(
                path=path, source_split=self.source_split, config=None if folder else self.config,
                columns=dict(self.columns), labels=self.labels, audio_folder=unpacked, clip_kind=self.kind,
                split="test", licence=self.licence,
            )  # fmt: skip
            clips = [self._placed(clip) for _, clip in described.clips()]
        return [replace(clip, id=f"{self.name}/{clip.id}", source=self.name) for clip in clips]

    def _placed(self, clip: Clip) -> Clip:
        """The clip in the split that `test` puts it into."""
        if not self.test or any(
            clip.labels.get(label, "").startswith(beginnings) for label, beginnings in self.test.items()
        ):
            return clip
        return replace(clip, split="train")


def folders_of(datasets: Sequence[TaskDataset], given: Sequence[str | Path]) -> dict[str, Path]:
    """Which folder stands in the place of which data set: NAME=FOLDER, a folder of that name, or the only one.

    Raises:
        UserError: A folder stands for none, or two for one.
    """
    names = list(dict.fromkeys(dataset.name for dataset in datasets))
    found: dict[str, Path] = {}
    for one in map(str, given):
        name, equals, path = one.partition("=")
        if not equals or name not in names:
            path = one
            name = names[0] if len(names) == len(given) == 1 else Path(one).stem.casefold()
        if name not in names:
            raise UserError(f"--corpus {one}: say for which of {', '.join(names)} it stands, as NAME=FOLDER")
        if name in found:
            raise UserError(f"--corpus {one}: {found[name]} stands for '{name}' already; give one of them")
        found[name] = Path(path)
    return found


def _columns_of(table: Path) -> list[str]:
    """Names of the columns of a table; the file is read again, and refused, by the corpus's own reader."""
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    if table.suffix == ".jsonl":
        row = load_json(first, str(table))
        return list(row) if isinstance(row, dict) else []
    return next(csv.reader([first], delimiter="\t" if table.suffix == ".tsv" else ","), [])


def _tables(folder: Path) -> list[Path]:
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    return [] if saved else sorted(path for end in ("csv", "tsv", "jsonl") for path in folder.glob(f"*.{end}"))
