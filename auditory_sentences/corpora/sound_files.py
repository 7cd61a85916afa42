"""Which files of a folder are sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from codec.io.errors import UserError, of_system

ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64")


def is_sound(name: str) -> bool:
    """Whether a file of this name is taken for sound: by its ending, in capitals or not, and unless it is hidden.

    Hidden are also the companions that macOS leaves on other disks: `._a.wav` holds no sound.
    """
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def sound_files(folder: str | Path) -> list[Path]:
    """The sound files that lie directly in a folder, by name.

    Raises:
        UserError: There is no such folder, or it may not be read.
    """
    folder = existing_folder(folder)
    try:
        return sorted(path for path in folder.iterdir() if is_sound(path.name) and not path.is_dir())
    except OSError as error:
        raise of_system(error, folder) from error


def files_below(folder: str | Path) -> Iterator[Path]:
    """All files in a folder and in the folders below it, in order, but for hidden ones.

    Raises:
        UserError: A folder may not be read.
    """

    def refuse(error: OSError) -> None:
        raise of_system(error) from error

    for at, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(at, name) for name in sorted(names) if not name.startswith("."))


def existing_folder(path: str | Path) -> Path:
    """The path of a folder that is there.

    Raises:
        UserError: It is a file, or there is nothing.
    """
    path = Path(path)
    if path.is_file():
        raise UserError(f"{path}: is a file, where the folder of a corpus is expected; describe a file in a YAML file")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; check the path of the corpus")
    return path
