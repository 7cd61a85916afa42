"""Several stores as one: what a recipe or an evaluation that names more than one reads."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.manifest import Failure
from auditory_sentences.token_store.shard import StoredClip
from auditory_sentences.token_store.store import StoredClips, TokenStore
from codec.io.errors import UserError
from codec.streams import StreamSpec


class JoinedStores(StoredClips):
    """The clips of several stores of one tokenizer, one store after the other.

    Args:
        stores: At least one.

    Raises:
        UserError: Two are of different tokenizers, or hold a clip of the same id; the message names both.
    """

    def __init__(self, stores: Sequence[TokenStore]) -> None:
        self.stores = tuple(stores)
        self.name = " + ".join(store.name for store in self.stores)
        self._ends = list(accumulate(map(len, self.stores)))
        first = self.stores[0]
        self.streams, self.sample_rate = first.streams, first.sample_rate
        for store in self.stores[1:]:
            if store.fingerprint != first.fingerprint:
                raise UserError(
                    f"{first.name} was made with the tokenizer {first.fingerprint}, {store.name} with "
                    f"{store.fingerprint}; stores that are used together need the same; make one with the other's"
                )
        owner: dict[str, TokenStore] = {}
        for store in self.stores:
            for clip in store.clips:
                if owner.setdefault(clip.id, store) is not store:
                    raise UserError(
                        f"{owner[clip.id].name} and {store.name} both hold a clip {clip.id!r}; leave one out, or build "
                        "one from a corpus with a `name`, which goes before its ids"
                    )

    def __reduce__(self) -> tuple[type, tuple[tuple[TokenStore, ...]]]:
        return JoinedStores, (self.stores,)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> StoredClip:
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of token stores of {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        return self.stores[number][index - (self._ends[number - 1] if number else 0)]

    @property
    def fingerprint(self) -> str:
        return self.stores[0].fingerprint

    @property
    def tokenizer(self) -> str:
        return next((store.tokenizer for store in self.stores if store.tokenizer), "")

    @property
    def failures(self) -> tuple[Failure, ...]:
        return tuple(failure for store in self.stores for failure in store.failures)

    @property
    def data_hash(self) -> str:
        return hashlib.sha256("".join(store.data_hash for store in self.stores).encode()).hexdigest()[:16]

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        return tuple(clip for store in self.stores for clip in store.clips)

    @cached_property
    def num_samples(self) -> tuple[int, ...]:
        return tuple(n for store in self.stores for n in store.num_samples)

    def require_streams(self, streams: Sequence[StreamSpec]) -> None:
        for store in self.stores:
            store.require_streams(streams)

    def verify(self) -> None:
        for store in self.stores:
            store.verify()


def open_stores(folders: str | Path | Sequence[str | Path]) -> TokenStore | JoinedStores:
    """The finished store in a folder, or those in several as one.

    Raises:
        UserError: No folder is given, or as TokenStore and JoinedStores raise it.
    """
    listed = [folders] if isinstance(folders, str | Path) else list(folders)
    if not listed:
        raise UserError("no token store is given; name at least one")
    stores = [TokenStore(folder) for folder in listed]
    return stores[0] if len(stores) == 1 else JoinedStores(stores)
