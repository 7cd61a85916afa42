"""What a recipe reads, by content: a resumed run must read the same, wherever it lies by then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from auditory_sentences.corpora.read import read_corpora
from codec.io.errors import UserError, of_system
from codec.io.files import sha256_of
from codec.io.shipped import located
from training.recipe import Recipe

_BLOCK = 65_536  # bytes of a recording that are read at its start, middle and end


def contents(recipe: Recipe) -> dict[str, list[str]]:
    """Key of the recipe -> a hash of each file or folder that it names; "" for what is not on this disk (a hub id).

    Keys of READS under which nothing is named are left out.

    Raises:
        UserError: something may not be read.
    """
    hashes = {}
    for key in recipe.READS:
        places = recipe.read_under(key)
        if key == "corpora" and places:
            hashes[key] = [_hash_of_corpora(places)]
        elif places:
            hashes[key] = [_hash_of(located(place)) for place in places]
    return hashes


def _hash_of(path: Path) -> str:
    """Of a file, or of the files of a folder; of a run's folder, those of its newest model."""
    try:
        if path.is_file():
            return sha256_of(path)
        if not path.is_dir():
            return ""
        folder = next((place for place in (path / "model", path) if (place / "config.json").is_file()), None)
        files = path.glob("*") if folder is None else folder.rglob("*")  # not all that lies below an unknown folder
        names = {file.relative_to(folder or path).as_posix(): file for file in files if file.is_file()}
        visible = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
        return hashlib.sha256("".join(f"{name} {sha256_of(names[name])}\n" for name in visible).encode()).hexdigest()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise (of_system(error, path) if isinstance(error, OSError) else UserError(f"{path}: {error}")) from error


def _hash_of_corpora(corpora: Sequence[str]) -> str:
    """Of the metadata of every clip but its path, and of parts of its sound: all of it would take too long."""
    digest = hashlib.sha256()
    for clip in read_corpora(corpora):
        metadata = sorted((name, value) for name, value in vars(clip).items() if name != "path")
        digest.update(repr(metadata).encode("utf-8", "surrogatepass"))
        try:
            if not os.path.isfile(clip.path):
                continue  # the trainer reports it when it reads the clip
            with open(clip.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(b"%d" % size)
                for place in sorted({0, max(0, (size - _BLOCK) // 2), max(0, size - _BLOCK)}):
                    file.seek(place)
                    digest.update(file.read(_BLOCK))
        except OSError as error:
            raise of_system(error, clip.path) from error
    return digest.hexdigest()
