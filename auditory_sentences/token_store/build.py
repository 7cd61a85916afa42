"""Building a store, going on with one, and bringing one up to date with its corpora."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.encoding import Batch, Encoded, Pace, encode
from auditory_sentences.token_store.manifest import (
    MANIFEST,
    Failure,
    Manifest,
    ShardEntry,
    read_manifest,
    write_manifest,
)
from auditory_sentences.token_store.plan import Part, Plan, plan_build
from auditory_sentences.token_store.shard import write_shard
from auditory_sentences.token_store.sources import Source, sources_path, write_sources
from auditory_sentences.token_store.store import TokenStore
from codec.io.errors import UserError
from codec.io.files import remove_leftovers
from codec.io.locks import locked
from codec.io.numbers import Range
from codec.io.terminal import printable
from codec.tokenizer import AudioTokenizer

MAX_FAILURES = 0.1  # share of the clips that may be unreadable, and
FEW_FAILURES = 10  # so many in any case, unless a share is given
_LISTED = 20  # failures that are shown


def build_store(
    clips: Iterable[Clip],
    tokenizer: AudioTokenizer,
    folder: str | Path,
    *,
    shard_clips: int = 512,
    batch_seconds: float = 120.0,
    max_seconds: float = 300.0,
    strict: bool = False,
    prune: bool = False,
    max_failures: float | None = None,
    tokenizer_source: str | Path = "",
    pace: Pace | None = None,
) -> TokenStore:
    """Tokenise the clips into `folder`: what is there already stays, what is new or has changed is encoded.

    An interrupted build goes on; a finished store is found complete, or brought up to date (auditory_sentences/
    token_store/plan.py says which clips are the same ones). Clips that could not be read before are tried again.

    Args:
        clips: Each with an id of its own.
        tokenizer: Makes the tokens.
        folder: New, or that of a store that this tokenizer made.
        shard_clips: Clips between two points that a kill cannot undo.
        batch_seconds: Sound encoded at once, padding included; batches hold clips of similar length. A tokenizer gives
            a clip the same tokens in any batch, so this changes speed and memory only.
        max_seconds: Longer clips are not stored (cut long recordings into clips of one group).
        strict: A clip that cannot be read is an error at once, instead of being listed at the end.
        prune: Take stored clips out that are not among those given, instead of refusing.
        max_failures: Share of the clips beyond which those that cannot be read stop the build, which keeps what it has
            done; None: MAX_FAILURES, and FEW_FAILURES clips whatever their share.
        tokenizer_source: Folder, shipped name or hub id that the tokenizer was loaded from: written into the store, so
            that a language model finds it there. "": what the store said before.
        pace: Is told how fast it went.

    Returns:
        The store, opened.

    Raises:
        UserError: The folder holds a store of another tokenizer, or of clips that are not given; too many clips, or
            all of them, cannot be read; there is no clip, or two have one id.
    """
    clips, folder = list(clips), Path(folder)
    if not clips:
        raise UserError(f"{folder}: there is no clip to tokenise; check the corpora")
    for clip_id, count in Counter(clip.id for clip in clips).items():
        if count > 1:
            raise UserError(f"two clips are called {clip_id!r}; rename one, or give its corpus a `name`")
    if max_failures is not None and (problem := Range(0, 1).problem(max_failures)):
        raise UserError(f"the share of clips that may be unreadable (--max-failures) {problem}, not {max_failures}")
    allowed = len(clips) * (MAX_FAILURES if max_failures is None else max_failures)
    if max_failures is None:
        allowed = max(allowed, FEW_FAILURES)
    with locked(folder, "the build of a token store"):
        source = _lasting(tokenizer_source)
        build = _Build(folder, tokenizer, source, batch_seconds, max_seconds, strict)
        build.run(clips, shard_clips, prune, allowed, pace or Pace())
    return TokenStore(folder, tokenizer.streams)


class _Build:
    """One run of a build, by the folder's only writer."""

    def __init__(
        self,
        folder: Path,
        tokenizer: AudioTokenizer,
        source: str,
        batch_seconds: float,
        max_seconds: float,
        strict: bool,
    ) -> None:
        self.folder, self.tokenizer, self.strict = folder, tokenizer, strict
        self.batch_seconds, self.max_seconds = batch_seconds, max_seconds
        self.counts: Counter[str] = Counter()
        found = read_manifest(folder)
        if found is None:
            _require_empty(folder)
        elif found.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"{folder}: holds tokens of the tokenizer {found.fingerprint}, but the tokenizer given is "
                f"{tokenizer.fingerprint}; choose another folder, or give the tokenizer that made it"
            )
        self.manifest = found or Manifest(
            fingerprint=tokenizer.fingerprint,
            streams=tokenizer.streams,
            sample_rate=tokenizer.sample_rate,
            complete=False,
            shards=(),
        )
        self.source = source or self.manifest.tokenizer
        if found is None:
            write_manifest(folder, self.manifest)  # from here on, the folder is a store's
        remove_leftovers(folder)
        for left in (*folder.glob("shard-*.arrow.tmp"), folder / f"{MANIFEST}.tmp"):  # of earlier versions
            left.unlink(missing_ok=True)

    def run(self, clips: Sequence[Clip], shard_clips: int, prune: bool, allowed: float, pace: Pace) -> None:
        """Build what is missing. allowed: clips that may be unreadable"""
        listed = [entry.file for entry in self.manifest.shards]
        plan = plan_build(self.folder, self.manifest, clips, self.tokenizer.streams, shard_clips, prune)
        for message in plan.messages:
            _say(message)
        if self.strict and plan.unread:
            raise UserError(f"{next(iter(plan.unread.values()))} (strict: nothing was changed)")
        entries = [part.entry for part in plan.parts]  # as they are now
        built: list[ShardEntry] = []
        number = max((entry.number for entry in self.manifest.shards), default=-1) + 1
        missing = [[i for i, place in enumerate(part.places) if place.row is None] for part in plan.parts]
        to_encode = sum(map(len, missing))
        columns = TextColumn("[progress.description]{task.description}"), BarColumn(), MofNCompleteColumn()
        bars = Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), disable=not to_encode
        )
        tried = failed = 0
        lists = ([part.places[i].clip for i in rows] for part, rows in zip(plan.parts, missing, strict=True))
        ahead = encode(lists, self.tokenizer, self.batch_seconds, self.max_seconds, pace)
        with bars, closing(ahead):
            bar = bars.add_task("token store", total=to_encode)
            for at, batches in groupby(ahead, key=lambda batch: batch.part):
                part = plan.parts[at]
                if part.entry is None:
                    path = self.folder / f"shard-{number:05d}.arrow"
                    number += 1
                else:
                    path = self.folder / part.entry.file
                encoded, failures = self._gather(part, missing[at], batches, lambda done: bars.advance(bar, done))
                built.append(self._build(part, path, encoded, failures))
                entries[at] = built[at]
                if built[at] != part.entry:
                    self._save(entries, complete=False)
                tried, failed = tried + len(part.places), failed + len(built[at].failures)
                if failed > allowed:
                    bars.stop()
                    raise self._too_many(entries, tried, failed, allowed)
        self._finish(plan, built, len(clips), listed)
        pace.end()
        if to_encode:
            _say(f"{self.folder}: {pace}")

    def _build(self, part: Part, path: Path, encoded: dict[int, Encoded], failures: dict[int, str]) -> ShardEntry:
        """Write a shard where it is new or differs from what is there; what the manifest is to say of it.

        Args:
            part: The shard to be.
            path: Its file.
            encoded: Tokens by place, of those that had none.
            failures: Why the others of these could not be read.
        """
        places = part.places
        kept = {i: place.row for i, place in enumerate(places) if place.row is not None}
        stored = sorted({*kept, *encoded})
        if part.entry is not None and part.shard is None and len(stored) < part.entry.clips:
            raise UserError(
                f"{path}: this shard is damaged, and {len(failures)} of its clips cannot be made anew (the first: "
                f"{next(iter(failures.values()), 'not given')}); restore the shard, or the recordings"
            )
        entry = part.entry
        if entry is None or not self._is_same(part, kept, encoded):
            self._save(self.manifest.shards, complete=False)
            tokens = {i: one.tokens for i, one in encoded.items()}
            if part.shard is not None:
                tokens |= {i: part.shard.tokens(row) for i, row in kept.items()}
            clips = [places[i].clip for i in stored]
            entry = write_shard(path, clips, [tokens[i] for i in stored], self.tokenizer.streams)
        sources = [
            encoded[i].source if i in encoded else place.source or Source(place.clip.id, place.clip.path)
            for i, place in enumerate(places)
        ]
        if part.entry is None or entry.sha256 != part.entry.sha256 or sources != part.sources:
            write_sources(self.folder, entry, sources)
        listed = (Failure(places[i].clip.id, places[i].clip.path, reason) for i, reason in sorted(failures.items()))
        return replace(entry, failures=tuple(listed))

    def _gather(
        self, part: Part, missing: list[int], batches: Iterable[Batch], advance: Callable[[int], None]
    ) -> tuple[dict[int, Encoded], dict[int, str]]:
        """Tokens of the part's places that have none, and the reasons for those that could not be read.

        Args:
            part: The shard to be.
            missing: Its places that have none.
            batches: What is made of them, by position among these.
            advance: Is told how many clips are done.
        """
        encoded: dict[int, Encoded] = {}
        failures: dict[int, str] = {}
        for batch in batches:
            encoded |= {missing[k]: one for k, one in batch.encoded.items()}
            failures |= {missing[k]: reason for k, reason in batch.unread.items()}
            advance(len(batch.encoded) + len(batch.unread))
            if failures and self.strict:
                break
        if failures and self.strict:
            raise UserError(f"{next(iter(failures.values()))} (strict: the token store was not finished)")
        self.counts["new"] += sum(not part.places[i].again for i in encoded)
        self.counts["encoded again"] += sum(part.places[i].again for i in encoded)
        return encoded, failures

    def _is_same(self, part: Part, kept: dict[int, int], encoded: dict[int, Encoded]) -> bool:
        """Whether the shard that is there holds the part's clips already; counts those that changed or moved.

        kept: place -> row of the shard that its tokens are in
        """
        if part.shard is None:
            return False
        changed = sum(not part.shard.is_of(row, part.places[i].clip) for i, row in kept.items())
        self.counts["with changed text or labels"] += changed
        if part.sources is not None:
            before = [source.path for source in part.sources if source.stored]
            self.counts["moved"] += sum(part.places[i].clip.path != before[row] for i, row in kept.items())
        return not encoded and not changed and list(kept.values()) == list(range(len(part.shard)))

    def _save(self, entries: Iterable[ShardEntry | None], complete: bool) -> None:
        """Write the manifest where it says something new."""
        shards = tuple(entry for entry in entries if entry is not None)
        manifest = replace(
            self.manifest,
            streams=self.tokenizer.streams,
            complete=complete,
            shards=shards,
            tokenizer=self.source,
        )
        if manifest != self.manifest:
            write_manifest(self.folder, manifest)
            self.manifest = manifest

    def _finish(self, plan: Plan, entries: list[ShardEntry], given: int, listed: Sequence[str]) -> None:
        """Declare the store complete and say what was done and left out."""
        failures = [failure for entry in entries for failure in entry.failures]
        stored = sum(entry.clips for entry in entries)
        if not stored:
            raise UserError(f"{self.folder}: none of the {given} clips could be read; the first: {failures[0].reason}")
        self._save(entries, complete=True)
        kept = {entry.file for entry in entries}
        for file in listed:
            if file not in kept:  # all its clips were taken out
                (self.folder / file).unlink(missing_ok=True)
                sources_path(self.folder, replace(entries[0], file=file)).unlink(missing_ok=True)
        counts = self.counts + Counter({"taken out": plan.pruned, "skipped": len(failures)})
        done = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        _say(f"{self.folder}: {stored} clips in the store: {done or 'nothing has changed'}")
        if plan.unread:
            reasons = list(plan.unread.values())
            _say(f"{len(reasons)} clips are kept as they are, though their recordings cannot be read now:")
            _list(reasons, "")
        if failures:
            _say(f"{len(failures)} of {given} clips could not be read and are not in the store:")
            _list([f"{failure.id}: {failure.reason}" for failure in failures], f"; {self.folder / MANIFEST} lists all")

    def _too_many(self, entries: Iterable[ShardEntry | None], tried: int, failed: int, allowed: float) -> UserError:
        failures = [failure for entry in entries if entry is not None for failure in entry.failures]
        _say(f"{failed} of {tried} clips could not be read:")
        _list([f"{failure.id}: {failure.reason}" for failure in failures], f"; {self.folder / MANIFEST} lists all")
        return UserError(
            f"{self.folder}: {failed} of the first {tried} clips could not be read, and {int(allowed)} may be; correct "
            "the corpora, or allow a larger share with --max-failures; what is done is kept, and another call resumes"
        )


def _lasting(source: str | Path) -> str:
    """A tokenizer's folder by its whole path, which means the same from everywhere; a name or hub id as it is."""
    return os.path.abspath(source) if source and Path(source).is_dir() else str(source)


def _require_empty(folder: Path) -> None:
    """Raise UserError where a folder without a manifest holds shards: it was lost, and they are not written over."""
    for path in sorted(folder.glob("shard-*.arrow")):
        raise UserError(
            f"{path}: a shard of a token store whose {MANIFEST} is missing; restore that from a copy, or choose "
            "another folder"
        )


def _list(lines: Sequence[str], where_all: str) -> None:
    for line in lines[:_LISTED]:
        _say(f"  {line}")
    if len(lines) > _LISTED:
        _say(f"  and {len(lines) - _LISTED} more{where_all}")


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)
