"""Clips, and the corpora they are read from.

A corpus is described by its `kind` and the options of that kind (corpus_kinds.py), in a recipe or a YAML file:

    kind: clips              a folder with clips.jsonl, one Clip a line: what the starter synthesiser writes
    kind: table              a CSV or JSONL file with a column of audio files and any of text, caption, speaker, ...
    kind: dataset            a `datasets` dataset with an audio column: saved folder, files, or hub id
    kind: spoken_digits      a folder of {digit}_{speaker}_{take}.wav

A bare path means `kind: clips` for a folder, and the description itself for a .yaml file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditory_sentences.clip import Clip
from auditory_sentences.corpus_kinds import (
    ClipsFolder,
    HubDataset,
    SpokenDigits,
    Table,
    check_keys,
    existing_folder,
)
from codec.errors import UserError
from codec.reading import read_yaml

__all__ = ["Clip", "describe", "read_corpora", "read_corpus"]

Description = ClipsFolder | Table | HubDataset | SpokenDigits
_DESCRIPTIONS = {"clips": ClipsFolder, "table": Table, "dataset": HubDataset, "spoken_digits": SpokenDigits}


def read_corpus(spec: Mapping[str, Any] | str | Path) -> list[Clip]:
    """All clips of a corpus, in its order.

    With a `name`, ids, groups and parts are called name/..., so that corpora can be joined.
    Raises UserError for what is missing or wrong, for an id that occurs twice and for a part that is no clip.
    """
    described = describe(spec)
    clips = list(described.clips())
    if described.name:
        at = described.name + "/"
        clips = [
            replace(
                clip, id=at + clip.id, group=clip.group and at + clip.group, parts=tuple(at + p for p in clip.parts)
            )
            for clip in clips
        ]
    if not clips:
        raise UserError(f"{described.path}: holds no clip; a corpus needs at least one")
    _check_ids(clips)
    return clips


def read_corpora(specs: Iterable[Mapping[str, Any] | str | Path]) -> list[Clip]:
    """The clips of several corpora, one after the other. Ids must differ between them too."""
    clips = [clip for spec in specs for clip in read_corpus(spec)]
    _check_ids(clips)
    return clips


def describe(spec: Mapping[str, Any] | str | Path) -> Description:
    """The corpus that a recipe, a YAML file or a bare path means. Raises UserError where it says nothing sensible.

    Paths in a YAML file are relative to it.
    """
    base = Path()
    if isinstance(spec, str | Path):
        path = Path(spec)
        if path.suffix.lower() not in (".yaml", ".yml"):
            return ClipsFolder(existing_folder(path).absolute())
        spec = read_yaml(path, "description of a corpus")
        base = path.absolute().parent
    values = dict(spec)
    kind = values.pop("kind", None)
    if kind not in _DESCRIPTIONS:
        raise UserError(f"corpus {dict(spec)}: kind {kind!r} is not one of {', '.join(_DESCRIPTIONS)}")
    check_keys(values, _DESCRIPTIONS[kind], f"corpus of kind {kind}")
    for name in ("path", "audio_folder"):
        # the path of a dataset may be a hub id, which no folder precedes
        if values.get(name) and (kind != "dataset" or name != "path" or (base / str(values[name])).exists()):
            values[name] = (base / str(values[name])).absolute()
    if kind == "dataset":
        values["path"] = str(values["path"])
    if "labels" in values:
        values["labels"] = tuple(values["labels"])
    return _DESCRIPTIONS[kind](**values)


def _check_ids(clips: Sequence[Clip]) -> None:
    seen: dict[str, Clip] = {}
    for clip in clips:
        if clip.id in seen:
            raise UserError(
                f"two clips are called {clip.id!r}: {seen[clip.id].path} and {clip.path}; "
                "rename one, or give its corpus a `name`"
            )
        seen[clip.id] = clip
    for clip in clips:
        for part in clip.parts:
            if part not in seen:
                raise UserError(f"clip {clip.id!r} names {part!r} as a part of it, which is no clip of its corpus")
