"""What a build has to do: which clips keep their tokens, which are encoded, and where each has its place.

A clip is known by its id and the content of its file. The same id and content is the same clip, wherever the file lies
now. A file replaced under its path is encoded again. The same content under a new id is a clip that was renamed. The
store keeps its order: new clips come behind those that it has, so that what was there stays as it was, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.token_store.encoding import require_writable
from auditory_sentences.token_store.manifest import Damaged, Manifest, ShardEntry
from auditory_sentences.token_store.shard import Shard
from auditory_sentences.token_store.sources import Source, measure, read_sources
from codec.io.errors import UserError
from codec.io.terminal import shown
from codec.streams import StreamSpec

_SHOWN = 5  # ids in a message


@dataclass
class Place:
    """A clip's place in a shard."""

    # as it was given
    clip: Clip
    # the recording that its tokens are of; None where it is to be encoded
    source: Source | None = None
    # of the shard as it was, where its tokens are; None where it is to be encoded
    row: int | None = None
    # it was in the store before
    again: bool = False


@dataclass
class Part:
    """A shard as it is to be, beside what it was."""

    # what the manifest says of it; None for a new one
    entry: ShardEntry | None = None
    # as it was; None for a new one, and for one that is damaged and to be made anew
    shard: Shard | None = None
    # what its clips were made of; None where nothing tells
    sources: list[Source] | None = None
    # of the clips that it is to hold, in their order
    places: list[Place] = field(default_factory=list)


@dataclass
class Plan:
    """The store to be."""

    # its shards
    parts: list[Part]
    # number of stored clips that are left out
    pruned: int = 0
    # id -> why, of stored clips whose files cannot be read now
    unread: dict[str, str] = field(default_factory=dict)
    # what a person should know of before it is done
    messages: list[str] = field(default_factory=list)


@dataclass
class _Member:
    """A clip that a shard holds, or that was to be in it."""

    # of the clip
    id: str
    # what it was made of; None where nothing tells
    source: Source | None
    # of the shard; None where it is not there
    row: int | None


def plan_build(
    folder: Path,
    manifest: Manifest,
    clips: Sequence[Clip],
    streams: Sequence[StreamSpec],
    shard_clips: int,
    prune: bool,
) -> Plan:
    """Find every clip its place.

    Args:
        folder: Of the store.
        manifest: What is there.
        clips: Which are to be there.
        streams: Of the tokenizer.
        shard_clips: Number of clips in a new shard.
        prune: Leave out stored clips that are not among those given.

    Raises:
        UserError: There are such clips, and `prune` is not set; or a shard may not be read.
    """
    order = {clip.id: i for i, clip in enumerate(clips)}
    left = {clip.id: clip for clip in clips}  # without a place as yet, in the order in which they were given
    plan = Plan([])
    gone: list[tuple[Part, int, _Member]] = []  # with the places in the part before it
    unknown: list[tuple[Part, ShardEntry]] = []
    for entry in manifest.shards:
        part = _opened(folder, entry, manifest, streams, plan)
        plan.parts.append(part)
        members = _members(part, entry, order)
        if members is None:
            unknown.append((part, entry))
            continue
        made_at = (folder / entry.file).stat().st_mtime_ns if part.shard is not None else 0
        for member in members:
            clip = left.get(member.id)
            place = _settled(clip, member, made_at, plan) if clip is not None else None
            if place is not None:
                del left[member.id]
                part.places.append(place)
            elif member.row is not None or (member.source is not None and member.source.stored):
                gone.append((part, len(part.places), member))
    for part, entry in unknown:  # nothing tells what these held: what a build in this order would put there
        for clip in list(left.values())[: entry.clips + len(entry.failures)]:
            part.places.append(Place(left.pop(clip.id), again=True))
    gone = _renamed(gone, left)
    if gone and not prune:
        raise _refusal(folder, [member.id for *_, member in gone], len(clips), order)
    plan.pruned = len(gone)
    plan.parts = [part for part in plan.parts if part.places]
    new = [Place(clip) for clip in left.values()]
    plan.parts += [Part(places=new[at : at + shard_clips]) for at in range(0, len(new), shard_clips)]
    return plan


def _opened(folder: Path, entry: ShardEntry, manifest: Manifest, streams: Sequence[StreamSpec], plan: Plan) -> Part:
    """A listed shard and its sources, None where they are damaged. UserError where one may not be read."""
    part = Part(entry)
    try:
        part.shard = Shard(folder, entry, manifest)
        part.shard.check_codes(streams)
    except Damaged as error:
        part.shard = None
        plan.messages.append(f"{str(error).split('; ')[0]}; it is made anew")
    try:
        part.sources = read_sources(folder, entry)
    except Damaged:
        return part
    if part.shard is not None and [source.id for source in part.sources if source.stored] != part.shard.ids:
        part.sources = None
    return part


def _members(part: Part, entry: ShardEntry, order: dict[str, int]) -> list[_Member] | None:
    """The clips of a listed shard in their order, those included that could not be read; None where nothing tells."""
    failed = [_Member(failure.id, None, None) for failure in entry.failures]
    if part.shard is None:
        return None if part.sources is None else [_Member(source.id, source, None) for source in part.sources]
    if part.sources is None:
        members = [_Member(clip_id, None, row) for row, clip_id in enumerate(part.shard.ids)]
        return sorted(members + failed, key=lambda member: order.get(member.id, len(order))) if failed else members
    rows = iter(range(len(part.shard)))
    return [_Member(source.id, source, next(rows) if source.stored else None) for source in part.sources]


def _settled(clip: Clip, member: _Member, made_at: int, plan: Plan) -> Place | None:
    """The place of a clip whose id the store has; None where the store holds another recording under that id.

    Args:
        made_at: When the shard was written, in ns: where nothing tells which file it was made of, an older one is
            trusted.
    """
    if member.row is None:
        return Place(clip, again=member.source is not None and member.source.stored)
    known = member.source
    try:
        require_writable(clip)
    except UserError:
        return Place(clip, again=True)  # refused when it is to be encoded
    try:
        now = measure(clip.id, clip.path, known)
    except UserError as error:
        plan.unread[clip.id] = str(error)
        known = known or Source(clip.id, clip.path, sha256="0" * 64)  # what it was made of is not known
        return Place(clip, replace(known, path=clip.path), member.row)
    if known is None:
        same = now.changed_at <= made_at
    else:
        same = now.sha256 == known.sha256
        if not same and now.path != known.path:
            return None
    return Place(clip, now, member.row) if same else Place(clip, again=True)


def _renamed(gone: list[tuple[Part, int, _Member]], left: dict[str, Clip]) -> list[tuple[Part, int, _Member]]:
    """Give clips of new ids the places of those whose recordings they are. Returns what is still gone."""
    by_content = {m.source.sha256: (part, at, m) for part, at, m in gone if m.row is not None and m.source is not None}
    found: list[tuple[Part, int, Place, _Member]] = []
    for clip in list(left.values()) if by_content else []:
        try:
            now = measure(clip.id, clip.path)
        except UserError:
            continue  # listed when it is to be encoded
        if now.sha256 in by_content:
            part, at, member = by_content.pop(now.sha256)
            found.append((part, at, Place(left.pop(clip.id), now, member.row), member))
    for part, at, place, _ in sorted(found, key=lambda one: (one[1], one[2].row), reverse=True):
        part.places.insert(at, place)
    kept = [member for *_, member in found]
    return [one for one in gone if not any(one[2] is member for member in kept)]


def _refusal(folder: Path, ids: list[str], given: int, order: dict[str, int]) -> UserError:
    listed = ", ".join(shown(clip_id, 60) for clip_id in ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
    others = [clip_id for clip_id in ids if clip_id in order]
    said = f"; {len(others)} of these ids now name another recording in another place" if others else ""
    return UserError(
        f"{folder}: holds {len(ids)} clips that are not among the {given} given ({listed}){said}: give the corpora "
        "that they are of too (with a `name` where ids are the same), choose another folder, or take them out "
        "with --prune"
    )
