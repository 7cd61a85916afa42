"""A finished store, for reading."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.lengths import Units
from auditory_sentences.token_store.manifest import MANIFEST, Damaged, Failure, read_manifest
from auditory_sentences.token_store.shard import Shard, StoredClip
from auditory_sentences.token_store.sources import read_sources, sources_path
from codec.io.errors import UserError, of_system
from codec.streams import StreamSpec

_CLIP_FIELDS = tuple(f.name for f in fields(Clip))


class StoredClips(ABC):
    """Clips with tokens, one store or several: `clips[i]` is a StoredClip."""

    name: str  # of the store, in messages
    streams: tuple[StreamSpec, ...]  # of the tokenizer, in the order of generation
    sample_rate: int  # of the tokenizer, in Hz

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Of the tokenizer that made the tokens."""

    @property
    @abstractmethod
    def tokenizer(self) -> str:
        """Folder, shipped name or hub id of the tokenizer when the tokens were made; "" where nobody wrote it down."""

    @property
    @abstractmethod
    def data_hash(self) -> str:
        """Identity of the contents, 16 hexadecimal digits."""

    @property
    @abstractmethod
    def clips(self) -> tuple[Clip, ...]:
        """The records of all clips, without tokens, in the store's order."""

    @property
    @abstractmethod
    def num_samples(self) -> tuple[int, ...]:
        """Of each clip at the tokenizer's rate: what a sentence will need is known without reading tokens."""

    @property
    @abstractmethod
    def failures(self) -> tuple[Failure, ...]:
        """Clips that could not be read when the store was built."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> StoredClip:
        """The clip of that position with its tokens. Raises IndexError outside [-len, len)."""

    @abstractmethod
    def require_streams(self, streams: Sequence[StreamSpec]) -> None:
        """Make sure that a tokenizer's streams are those of the store.

        Raises:
            UserError: They are not, or an id is no code of its stream; then the message names shard and clip.
        """

    @abstractmethod
    def verify(self) -> None:
        """Read all that there is and compare the checksums.

        Raises:
            UserError: Something is damaged; the message names it.
        """

    def __iter__(self) -> Iterator[StoredClip]:
        return (self[i] for i in range(len(self)))

    @property
    def seconds(self) -> float:
        """Length of all clips together."""
        return sum(self.num_samples) / self.sample_rate

    @cached_property
    def units(self) -> Units:
        """How its clips are cut."""
        return Units(self.streams, self.sample_rate)

    @cached_property
    def _index_of(self) -> dict[str, int]:
        index: dict[str, int] = {}
        for i, clip in enumerate(self.clips):
            if index.setdefault(clip.id, i) != i:
                raise UserError(
                    f"{self.name}: two of its clips are called {clip.id!r}; build it again in another folder"
                )
        return index

    def index_of(self, clip_id: str) -> int:
        """Where the clip of that id is.

        Raises:
            UserError: There is none.
        """
        if clip_id not in self._index_of:
            raise UserError(f"{self.name}: holds no clip {clip_id!r}; its clips.jsonl lists all that a corpus has")
        return self._index_of[clip_id]

    def select(self, **wanted: str) -> list[int]:
        """Positions of the clips that agree in every field or label named: select(split="test", instrument="piano")."""

        def agrees(clip: Clip) -> bool:
            return all((getattr(clip, k) if k in _CLIP_FIELDS else clip.labels.get(k)) == v for k, v in wanted.items())

        return [i for i, clip in enumerate(self.clips) if agrees(clip)]


class TokenStore(StoredClips):
    """A finished store: `store[i]` is a StoredClip, in the store's own order.

    A shard's checksum is compared when it is first read from, and the ids in it with the streams. Only what is read is
    in memory: the shards are mapped. A store may be pickled to, and opened in, other processes.

    Args:
        folder: Of the store.
        streams: Of a tokenizer; those that the store names if not given.

    Raises:
        UserError: The folder holds no finished store, or a shard is missing or of another size.
    """

    def __init__(self, folder: str | Path, streams: Sequence[StreamSpec] | None = None) -> None:
        self.folder, self.name = Path(folder), str(folder)
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise UserError(f"{self.folder}: holds no token store ({MANIFEST}); build one with `uniaudio corpus store`")
        clips = sum(shard.clips for shard in manifest.shards)
        if not manifest.complete:
            raise UserError(
                f"{self.folder}: the token store is not finished ({clips} clips in {len(manifest.shards)} shards are "
                "built); run the command that builds it again, it resumes where it was interrupted"
            )
        if not clips:
            raise UserError(f"{self.folder}: the token store holds no clip; build one from a corpus that can be read")
        for shard in manifest.shards:
            path = self.folder / shard.file
            try:
                size = path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                size = -1
            except OSError as error:
                raise of_system(error, path) from error
            if size != shard.bytes:
                raise Damaged(
                    f"{path}: this shard is {'missing' if size < 0 else f'not as long as {MANIFEST} says'}; restore it "
                    "from a copy, or run `uniaudio corpus store` with the same corpora again, which makes it anew"
                )
        self._manifest, self.sample_rate = manifest, manifest.sample_rate
        self.streams = tuple(streams or manifest.streams)
        self._ends = list(accumulate(shard.clips for shard in manifest.shards))
        self._shards: dict[int, Shard] = {}
        self._clips: dict[int, list[Clip]] = {}

    def __reduce__(self) -> tuple[type, tuple[Path, tuple[StreamSpec, ...]]]:
        return TokenStore, (self.folder, self.streams)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> StoredClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a token store of {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        clip = self._clips_of(number)[row]
        return StoredClip(
            **{name: getattr(clip, name) for name in _CLIP_FIELDS}, tokens=self._shard(number).tokens(row)
        )

    @property
    def fingerprint(self) -> str:
        return self._manifest.fingerprint

    @property
    def tokenizer(self) -> str:
        return self._manifest.tokenizer

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for shard in self._manifest.shards for failure in shard.failures)

    @property
    def data_hash(self) -> str:
        """Hash of the shards' checksums: of records and tokens, wherever the recordings lie."""
        sums = "".join(shard.sha256 for shard in self._manifest.shards)
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        return tuple(clip for number in range(len(self._ends)) for clip in self._clips_of(number))

    @cached_property
    def num_samples(self) -> tuple[int, ...]:
        return tuple(n for number in range(len(self._ends)) for n in self._shard(number).num_samples)

    @property
    def seconds(self) -> float:
        return sum(shard.samples for shard in self._manifest.shards) / self.sample_rate

    def require_streams(self, streams: Sequence[StreamSpec]) -> None:
        shapes = [[(s.name, s.rate, s.codebooks) for s in some] for some in (streams, self._manifest.streams)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{self.folder}: holds the streams {'; '.join(s.describe() for s in self._manifest.streams)}, and the "
                f"tokenizer has {'; '.join(s.describe() for s in streams)}; build the store with it"
            )
        self.streams = tuple(streams)
        for number in range(len(self._ends)):
            self._shard(number).check_codes(streams)

    def verify(self) -> None:
        fresh = TokenStore(self.folder, self.streams)
        for number in range(len(self._ends)):
            fresh._clips_of(number)

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            shard = Shard(self.folder, self._manifest.shards[number], self._manifest)
            shard.check_codes(self.streams)
            self._shards[number] = shard
        return self._shards[number]

    def _clips_of(self, number: int) -> list[Clip]:
        if number not in self._clips:
            shard, entry = self._shard(number), self._manifest.shards[number]
            if shard.paths is not None and not os.path.lexists(sources_path(self.folder, entry)):
                paths = shard.paths
            else:
                sources = [source for source in read_sources(self.folder, entry) if source.stored]
                if [source.id for source in sources] != shard.ids:
                    raise Damaged(f"{sources_path(self.folder, entry)}: lists other clips than {entry.file} holds")
                paths = [source.path for source in sources]
            self._clips[number] = shard.clips(paths)
        return self._clips[number]
