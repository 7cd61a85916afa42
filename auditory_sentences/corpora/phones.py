"""When each phone of a clip is spoken: a file beside the recordings, written by the starter synthesiser or an aligner.

phones.jsonl    {"id": "train-speech-00000", "phones": [[0.05, 0.13, "s"], ...]}: seconds, a line a clip
*.item          the item files of phonemes (not of triphones) that ZeroSpeech publishes, for LibriSpeech among others:
                `file onset offset phone previous next speaker` after a head that begins with #file
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from auditory_sentences.corpora.clip import Clip
from codec.io.errors import UserError
from codec.io.reading import open_text, read_json_lines
from codec.io.terminal import shown

PHONES_FILE = "phones.jsonl"
_ITEM_COLUMNS = ("#file", "onset", "offset", "#phone")


class Phone(NamedTuple):
    """One phone of a clip."""

    # seconds from the clip's first sample
    start: float
    # the same
    end: float
    # its name: IPA without stress marks where the starter synthesiser wrote it
    name: str


Phones = tuple[Phone, ...]  # of one clip, in the order of time


def phones_of(clips: Iterable[Clip]) -> dict[str, Phones]:
    """The phones of clips, by their ids: those that a file in a recording's folder, or in the one above, knows.

    Raises:
        UserError: Such a file is damaged.
    """
    known: dict[Path, dict[str, Phones]] = {}
    found = {}
    for clip in clips:
        name = clip.id.rpartition("/")[2]  # the id within its corpus
        for folder in (Path(clip.path).parent, Path(clip.path).parent.parent):
            if folder not in known:
                known[folder] = _phones_in(folder)
            if phones := known[folder].get(name) or known[folder].get(Path(clip.path).stem):
                found[clip.id] = phones
                break
    return found


def read_phones(path: str | Path) -> dict[str, Phones]:
    """The phones of each clip that a file of phone times lists.

    Args:
        path: Of a .jsonl or .item file.

    Raises:
        UserError: There is none, or a line of it makes no sense; the message names it.
    """
    path = Path(path)
    rows = _item_rows(path) if path.suffix == ".item" else _json_rows(path)
    found: dict[str, list[Phone]] = {}
    for where, clip, start, end, name in rows:
        numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in (start, end))
        if not numbers or not isinstance(name, str) or not name or not 0 <= start < end:
            raise UserError(
                f"{where}: a phone has a start before its end, in seconds, and a name, not "
                f"{shown([start, end, name])}; correct it"
            )
        found.setdefault(clip, []).append(Phone(float(start), float(end), name))
    return {clip: tuple(sorted(phones)) for clip, phones in found.items()}


def phones_line(clip: str, phones: Phones) -> str:
    """A line of phones.jsonl, without its end. A sample at 24 kHz lasts 0.00004 s."""
    times = [[round(phone.start, 5), round(phone.end, 5), phone.name] for phone in phones]
    return json.dumps({"id": clip, "phones": times}, ensure_ascii=False)


def _phones_in(folder: Path) -> dict[str, Phones]:
    files = [path for path in (folder / PHONES_FILE, *sorted(folder.glob("*.item"))) if path.is_file()]
    return {clip: phones for path in reversed(files) for clip, phones in read_phones(path).items()}


def _json_rows(path: Path) -> Iterable[tuple[str, str, Any, Any, Any]]:
    for where, line in read_json_lines(path, "file of phone times"):
        clip, phones = line.get("id"), line.get("phones")
        if not isinstance(clip, str) or not isinstance(phones, list):
            raise UserError(f"{where}: has no 'id' with a list 'phones'; correct it")
        for phone in phones:
            if not isinstance(phone, list) or len(phone) != 3:
                raise UserError(f"{where}: a phone is [start, end, name], not {shown(phone)}; correct it")
            yield where, clip, *phone


def _item_rows(path: Path) -> Iterable[tuple[str, str, Any, Any, Any]]:
    with open_text(path, "file of phone times") as file:
        for number, line in enumerate(file, 1):
            cells, where = line.split(), f"{path}, line {number}"
            if number == 1:
                if tuple(cells[:4]) != _ITEM_COLUMNS:
                    raise UserError(f"{path}: an item file begins with '{' '.join(_ITEM_COLUMNS)}'; give such a file")
                continue
            if not cells:
                continue
            try:
                yield where, cells[0], float(cells[1]), float(cells[2]), cells[3]
            except (IndexError, ValueError) as error:
                raise UserError(f"{where}: is not 'file onset offset phone ...'; correct it") from error
