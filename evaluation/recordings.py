"""Recordings for reconstruction tasks: clips without tokens, from a corpus or from any folder of sound files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from auditory_sentences.corpora.read import Clip, read_corpora, read_corpus
from auditory_sentences.token_store import JoinedStores, StoredClip, TokenStore
from codec.io.errors import UserError

_SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")


class Recordings:
    """Clips in the place of a token store: reconstruction tasks need nothing else."""

    name = fingerprint = ""

    def __init__(self, sources: Sequence[str | Path]) -> None:
        """Read the sources (`read_recordings`).

        Raises:
            UserError: A source holds no clip, or two clips have one id.
        """
        self.clips = tuple(clip for source in map(Path, sources) for clip in read_recordings(source))
        if len({clip.id for clip in self.clips}) < len(self.clips):
            raise UserError("two recordings have the same id; evaluate their folders one after the other")

    @cached_property
    def data_hash(self) -> str:
        """Identity of the recordings."""
        return hash_of_recordings(self.clips)


class Relocated:
    """A token store whose recordings have moved: clips keep their tokens, and are read from where corpora have them."""

    def __init__(self, store: TokenStore | JoinedStores, sources: Sequence[str | Path]) -> None:
        """Find the store's clips in corpora (`read_recordings`), by their ids.

        Raises:
            UserError: A corpus cannot be read, or none holds a clip of the store.
        """
        paths = {clip.id: clip.path for source in map(Path, sources) for clip in read_recordings(source)}
        self.store, self.fingerprint, self.data_hash = store, store.fingerprint, store.data_hash
        self.name, self.streams, self.sample_rate = store.name, store.streams, store.sample_rate
        self.num_samples, self.units = store.num_samples, store.units
        self.clips = tuple(replace(clip, path=paths.get(clip.id, clip.path)) for clip in store.clips)
        if not any(clip.id in paths for clip in store.clips):
            raise UserError(
                f"{', '.join(map(str, sources))}: holds none of the token store's clips; "
                "give the corpus that the store was built from, or leave --corpus out"
            )

    def __getitem__(self, i: int) -> StoredClip:
        return replace(self.store[i], path=self.clips[i].path)


def hash_of_recordings(clips: Sequence[Clip]) -> str:
    """Identity of recordings, 16 hexadecimal digits: a hash of what is known about each, and of its size."""
    digest = hashlib.sha256()
    for clip in sorted(clips, key=lambda clip: clip.id):
        path = Path(clip.path)
        known = json.loads(replace(clip, path=path.name).to_json())
        digest.update(json.dumps([known, path.stat().st_size if path.is_file() else None]).encode())
    return digest.hexdigest()[:16]


def read_recordings(source: Path) -> list[Clip]:
    """The clips of a YAML description, of a folder with clips.jsonl, or of a folder that describes itself:

    files named DIGIT_SPEAKER_TAKE.wav are spoken digits; a CSV with the columns file and text is read speech; other
    sound files are recordings of any kind.

    Raises:
        UserError: There is none of these.
    """
    if source.suffix.lower() in (".yaml", ".yml") or (source / "clips.jsonl").is_file():
        return read_corpora([source])
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; give a corpus, its YAML description, or a folder of sound files")
    tables = sorted(source.glob("*.csv"))
    if any(source.glob("[0-9]_*_*.wav")):
        return read_corpus({"kind": "spoken_digits", "path": str(source)})
    if len(tables) == 1:
        return read_corpus({"kind": "table", "path": str(tables[0]), "split": "test", "source": "read sentences"})
    files = sorted(p for p in source.iterdir() if p.suffix.lower() in _SOUNDS and not p.name.startswith("._"))
    if not files:
        raise UserError(f"{source}: holds no sound file ({', '.join(_SOUNDS)}); give another folder")
    return [Clip(f"{source.name}/{path.stem}", str(path), "sound", "test", source="recordings") for path in files]
