"""Clips, and the corpora they are read from.

A corpus is described by its `kind` and the options of that kind, in a recipe or a YAML file:

    kind: clips              a folder with clips.jsonl, one Clip a line: what the starter synthesiser writes
    kind: table              a CSV, TSV or JSONL file: a column of audio files, and any of text, caption, speaker, ...
    kind: dataset            a `datasets` dataset with an audio column: saved folder, files, or hub id
    kind: spoken_digits      a folder of {digit}_{speaker}_{take}.wav

A bare path means `kind: clips` for a folder, and the description itself for a .yaml file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.clip_folders import ClipsFolder, SpokenDigits
from auditory_sentences.corpora.hub_dataset import HubDataset, is_hub_id
from auditory_sentences.corpora.sound_files import existing_folder
from auditory_sentences.corpora.table import Table
from codec.io.errors import UserError
from codec.io.reading import read_yaml
from codec.io.strict import nearest, parse
from codec.io.terminal import printable, shown

__all__ = ["Clip", "describe", "read_corpora", "read_corpus"]

Description = ClipsFolder | Table | HubDataset | SpokenDigits
_DESCRIPTIONS: dict[str, type[Description]] = {
    "clips": ClipsFolder,
    "table": Table,
    "dataset": HubDataset,
    "spoken_digits": SpokenDigits,
}


def read_corpus(spec: Mapping[str, Any] | str | Path) -> list[Clip]:
    """All clips of a corpus, in its order.

    With a `name`, ids, groups and parts are called name/..., so that corpora can be joined. Whether the audio files can
    be read is for their reader to find out.

    Args:
        spec: Its description, as a recipe or a YAML file has it, the path of such a file, or that of a folder.

    Raises:
        UserError: Something is missing or wrong, an id occurs twice, or a part is no clip.
    """
    return read_corpora([spec])


def read_corpora(specs: Iterable[Mapping[str, Any] | str | Path]) -> list[Clip]:
    """The clips of several corpora, one after the other. Arguments and errors as in `read_each`."""
    return [clip for clips in read_each(specs) for clip in clips]


def read_each(specs: Iterable[Mapping[str, Any] | str | Path]) -> list[list[Clip]]:
    """The clips of each of several corpora.

    Args:
        specs: As in `read_corpus`.

    Raises:
        UserError: As in `read_corpus`, and where an id occurs in two of them.
    """
    corpora = []
    for spec in specs:
        found = _placed_clips(describe(spec))
        _check_parts(found)
        corpora.append(found)
    _check_ids([placed for found in corpora for placed in found])
    return [[clip for _, clip in found] for found in corpora]


def describe(spec: Mapping[str, Any] | str | Path) -> Description:
    """The corpus that a recipe, a YAML file or a bare path means. Paths in a YAML file are relative to it.

    Raises:
        UserError: It says nothing sensible.
    """
    source, base = "corpus", Path()
    if isinstance(spec, str | Path):
        path = Path(spec)
        if path.suffix.lower() not in (".yaml", ".yml"):
            return ClipsFolder(existing_folder(path).absolute())
        spec = read_yaml(path, "description of a corpus")
        source, base = str(path), path.absolute().parent
    values = dict(spec)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in _DESCRIPTIONS:
        close = nearest(kind, _DESCRIPTIONS) if isinstance(kind, str) else ""
        raise UserError(f"{source}: kind {shown(kind)} is not one of {', '.join(_DESCRIPTIONS)}{close}")
    for name in ("path", "audio_folder"):
        if isinstance(values.get(name), str) and (not values[name].strip() or "\0" in values[name]):
            raise UserError(f"{source}: {name!r} {shown(values[name])} names nothing; correct it")
    if kind == "dataset" and isinstance(values.get("path"), Path):
        values["path"] = str(values["path"])  # which may be a hub id
    return _absolute(parse(_DESCRIPTIONS[kind], values, source), base)


def _absolute(described: Description, base: Path) -> Description:
    """The description with paths that hold wherever the program is run."""
    path = (base / described.path).absolute()
    if isinstance(described, HubDataset):
        if path.exists() or not is_hub_id(described.path):
            described = replace(described, path=str(path))
    else:
        described = replace(described, path=path)
    if isinstance(described, HubDataset | Table) and described.audio_folder is not None:
        described = replace(described, audio_folder=(base / described.audio_folder).absolute())
    return described


def _placed_clips(described: Description) -> list[tuple[str, Clip]]:
    """(where it stands, clip) of a corpus, with its name before the ids."""
    placed = list(described.clips())
    if not placed:
        raise UserError(f"{described.path}: holds no clip; a corpus needs at least one")
    if not described.name:
        return placed
    at = described.name + "/"
    return [
        (
            where,
            replace(
                clip, id=at + clip.id, group=clip.group and at + clip.group, parts=tuple(at + p for p in clip.parts)
            ),
        )
        for where, clip in placed
    ]


def _check_ids(placed: Sequence[tuple[str, Clip]]) -> None:
    """Every id is one clip's, and can be shown: reports, file names and messages are made of ids."""
    seen: dict[str, tuple[str, Clip]] = {}
    for where, clip in placed:
        for what, text in (("id", clip.id), ("group", clip.group), *(("label", name) for name in clip.labels)):
            if printable(text) != text or "\n" in text or "\t" in text:
                raise UserError(
                    f"{where}: the {what} {shown(text)} of a clip holds characters that cannot be shown; rename it"
                )
        words = (clip.text, clip.caption, clip.speaker, clip.licence, clip.source, *clip.labels.values())
        if not all(map(_is_unicode, words)):
            raise UserError(
                f"{where}: clip {shown(clip.id)} holds half a character (a lone surrogate); correct its text"
            )
        if clip.id in seen:
            before, other = seen[clip.id]
            raise UserError(
                f"{where}: two clips are called {shown(clip.id)}: {other.path} ({before}) and {clip.path}; rename one, "
                "or give its corpus a `name`"
            )
        seen[clip.id] = where, clip


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_parts(placed: Sequence[tuple[str, Clip]]) -> None:
    ids = {clip.id for _, clip in placed}
    for where, clip in placed:
        for part in clip.parts:
            if part not in ids:
                raise UserError(
                    f"{where}: clip {shown(clip.id)} names {shown(part)} as a part of it, which is no clip of its "
                    "corpus; correct the id"
                )
