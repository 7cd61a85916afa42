"""Corpora that are folders with names of ours: clips.jsonl, and spoken digits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.corpora.rows import address_of
from auditory_sentences.corpora.sound_files import existing_folder, files_below, is_sound, sound_files
from codec.io.errors import UserError
from codec.io.reading import read_json_lines
from codec.io.strict import parse
from lm.words import DIGITS

_NAME = re.compile(r"([0-9])_([^_]+)_([0-9]+)")  # of a spoken digit


@dataclass(frozen=True)
class ClipsFolder:
    """A folder with clips.jsonl, a clip a line."""

    # of the folder, which audio paths in the list are relative to
    path: Path
    # of the corpus, put before the ids of its clips
    name: str = ""

    def clips(self) -> Iterator[tuple[str, Clip]]:
        """(where it stands, clip) of every line.

        Raises:
            UserError: There is no such list, or a line is no clip; the message names it.
        """
        folder = existing_folder(self.path)
        remedy = "a corpus is a folder with this list, or a YAML file that describes one"
        for where, values in read_json_lines(folder / "clips.jsonl", "file", remedy):
            name = values.get("path")
            if isinstance(name, str) and name.strip():
                values["path"] = str(folder / address_of(name, where))
            yield where, parse(Clip, values, where)


@dataclass(frozen=True)
class SpokenDigits:
    """Files named {digit}_{speaker}_{take}.wav, as in the Free Spoken Digit Dataset; takes 45 to 49 are dev.

    Any ending of a sound file will do, in capitals or not. Files of other kinds, hidden ones among them, are passed by.
    """

    # of the folder
    path: Path
    # of the corpus, put before the ids of its clips
    name: str = ""
    # of all clips
    licence: str = "CC-BY-SA-4.0"
    # of all clips
    source: str = "Free Spoken Digit Dataset"

    def clips(self) -> Iterator[tuple[str, Clip]]:
        """(its file, clip) of every recording, by name.

        Raises:
            UserError: There is none, or one is named otherwise.
        """
        files = sound_files(self.path)
        below = sum(is_sound(path.name) for path in files_below(self.path)) - len(files)
        if not files:
            hint = f"; {below} lie in folders below it, give one of these" if below else ""
            raise UserError(f"{self.path}: holds no .wav file{hint or '; give the folder with the recordings'}")
        if others := sorted(path.name for path in self.path.iterdir() if _unread(path)):
            warnings.warn(f"{self.path}: {len(others)} files such as {others[0]} are not read", stacklevel=2)
        if below:
            warnings.warn(f"{self.path}: {below} sound files in folders below it are not read", stacklevel=2)
        for file in files:
            found = _NAME.fullmatch(file.stem)
            if not found:
                raise UserError(f"{file}: is not named DIGIT_SPEAKER_TAKE.wav; rename it or move it elsewhere")
            digit, speaker, take = found.groups()
            yield str(file), Clip(
                id=file.stem, path=str(file), kind="speech", split="dev" if 45 <= int(take) <= 49 else "train",
                text=DIGITS[int(digit)], speaker=speaker, labels={"content": "digits"}, licence=self.licence,
                source=self.source,
            )  # fmt: skip


def _unread(path: Path) -> bool:
    """Whether a file is named like a spoken digit, and is of no ending that is read."""
    return bool(_NAME.fullmatch(path.stem)) and not is_sound(path.name)
