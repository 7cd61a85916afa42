"""The catalogue of a split: which clips belong together, by everything that auditory sentences link clips with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lm.words import as_number, normalise_words

if TYPE_CHECKING:
    from auditory_sentences.corpora.clip import Clip
    from auditory_sentences.lengths import Units
    from auditory_sentences.rng import KeyedRng
    from auditory_sentences.token_store import StoredClip
    from codec.streams import StreamSpec

MAX_LABEL_VALUES = 64  # a label with more values is a name or a measurement, not a class to ask about


class ClipStore(Protocol):
    """What sentences are built from: a token store, several as one, or whatever stands in their place."""

    @property
    def clips(self) -> Sequence[Clip]:
        """Records of all clips, without tokens."""

    @property
    def data_hash(self) -> str:
        """Identity of all that it holds."""

    @property
    def streams(self) -> Sequence[StreamSpec]:
        """Of the tokens."""

    @property
    def sample_rate(self) -> int:
        """Of the sound that they stand for, in Hz."""

    @property
    def num_samples(self) -> Sequence[int] | Mapping[int, int]:
        """Length of each clip."""

    @property
    def units(self) -> Units:
        """How clips are cut."""

    def __getitem__(self, index: int, /) -> StoredClip:
        """A clip with its tokens."""


class Catalogue:
    """What one split of a token store holds. Clips are known by their positions in the store; no tokens are held.

    Args:
        store: Clips as tokens.
        split: Whose clips count.
    """

    def __init__(self, store: ClipStore, split: str) -> None:
        self.store = store
        self.split = split
        self.members: list[int] = []  # all clips of the split
        self.by_kind: dict[str, list[int]] = defaultdict(list)
        self.by_speaker: dict[str, list[int]] = defaultdict(list)  # speech alone
        self.by_label: dict[tuple[str, str, str], list[int]] = defaultdict(list)  # by kind, label and value
        self.words_of: dict[int, str] = {}  # what is said, as it is compared; speech alone
        by_group, by_text = defaultdict(list), defaultdict(list)
        position_of, parts = {}, {}
        for i, clip in enumerate(store.clips):
            if clip.split != split:
                continue
            self.members.append(i)
            self.by_kind[clip.kind].append(i)
            position_of[clip.id] = i
            if clip.group:
                by_group[clip.group].append((clip.position, i))
            if clip.kind == "speech" and clip.speaker:
                self.by_speaker[clip.speaker].append(i)
                if clip.text:
                    self.words_of[i] = normalise_words(clip.text)
                    by_text[self.words_of[i]].append((clip.speaker, i))
            if clip.parts:
                parts[i] = clip.parts
            for label, value in clip.labels.items():
                self.by_label[clip.kind, label, value].append(i)
        # Clips cut from one long recording, in order; at least two each (Clip.group and Clip.position).
        self.recordings = [tuple(i for _, i in sorted(group)) for group in by_group.values() if len(group) > 1]
        self.recording_of = {i: recording for recording in self.recordings for i in recording}
        # Clips that say the same words, by at least two speakers.
        self.same_text = [tuple(i for _, i in said) for said in by_text.values() if len({who for who, _ in said}) > 1]
        self.same_text_of = {i: said for said in self.same_text for i in said}
        # Mixture -> its clean parts, where all of them are in this split.
        self.parts_of = {
            i: tuple(position_of[name] for name in names)
            for i, names in parts.items()
            if all(name in position_of for name in names)
        }
        # Of the whole store, all splits, so that training and evaluation offer the same.
        self.label_values = label_values(store.clips)

    def cast(
        self,
        position: int,
        paths: Iterable[str],
        suits: Callable[[str, Clip], bool] = lambda path, clip: True,
        rng: KeyedRng | None = None,
        prefix: str = "",
    ) -> Mapping[str, tuple[int, ...]]:
        """The clips that a sentence around a clip is about: path -> their positions; "" is the clip itself.

        Args:
            position: Of the clip.
            paths: Names in RELATIONS, one after the other: "part.speaker" is another clip by the speaker of the very
                part that "part" is in this sentence.
            suits: (path, clip) -> whether the clip has what the sentence wants of it.
            rng: Draws among the choices; without it, the first that will do.
            prefix: Of the paths that `suits` is asked about.

        Returns:
            A mapping of all paths; empty where there is no choice for one of them.
        """
        found: dict[str, tuple[int, ...]] = {"": (position,)}
        onward: dict[str, list[str]] = {}  # relation -> paths that start from what it leads to
        for path in filter(None, paths):
            relation, _, rest = path.partition(".")
            onward.setdefault(relation, []).append(rest)
        for relation, rests in sorted(onward.items()):
            for chosen in self._choices(position, RELATIONS[relation], rng):
                if not all(suits(prefix + relation, self.clip(i)) for i in chosen):
                    continue
                there = self.cast(chosen[0], rests, suits, rng, f"{prefix}{relation}.")
                if there:
                    found[relation] = chosen
                    found |= {f"{relation}.{path}": clips for path, clips in there.items() if path}
                    break
            else:
                return {}
        return found

    def _choices(self, position: int, relation: Relation, rng: KeyedRng | None) -> Iterator[tuple[int, ...]]:
        """What may stand in the relation to a clip, in random order. A speaker may have a hundred thousand clips."""
        candidates = relation.candidates(self, position)
        if relation.all_of_them:
            if candidates:
                yield tuple(candidates)
            return
        seen: set[int] = set()
        for looked_at in (8, 512, len(candidates)):
            for i in candidates[:looked_at] if rng is None else rng.sample(candidates, looked_at):
                if i not in seen and relation.fits(self, position, i):
                    yield (i,)
                seen.add(i)

    def clip(self, position: int) -> Clip:
        """The clip's record, without tokens."""
        return self.store.clips[position]

    @property
    def units(self) -> Units:
        """How the clips' audio is cut."""
        return self.store.units

    def seconds(self, position: int) -> float:
        """Length of the clip, known without its tokens."""
        return self.store.num_samples[position] / self.store.sample_rate

    def stored_cast(self, cast: Mapping[str, Iterable[int]]) -> Cast:
        """The clips of a cast with their tokens."""
        clips = {path: tuple(self.store[i] for i in positions) for path, positions in cast.items()}
        return Cast(clips, self.units)

    def stored(self, position: int) -> StoredClip:
        """The clip with its tokens."""
        return self.store[position]


class Cast(NamedTuple):
    """The clips that one sentence is about, with their tokens."""

    # path of relations -> clips; "" the clip itself
    clips: Mapping[str, tuple[StoredClip, ...]]
    # how their audio is cut
    units: Units


class Relation(NamedTuple):
    """How a clip belongs with others."""

    # (catalogue, position of the clip) -> positions of those that may; in time that does not grow with them
    candidates: Callable[[Catalogue, int], Sequence[int]]
    # (catalogue, the clip, a candidate) -> whether it does
    fits: Callable[[Catalogue, int, int], bool] = lambda catalogue, position, other: True
    # whether all candidates are meant, in their order, rather than one of them
    all_of_them: bool = False


def _same_speaker(catalogue: Catalogue, position: int) -> Sequence[int]:
    speaker = catalogue.clip(position).speaker
    return catalogue.by_speaker.get(speaker, ()) if speaker else ()


def _other_words(catalogue: Catalogue, position: int, other: int) -> bool:
    words = catalogue.words_of.get(position)
    return other != position and (not words or catalogue.words_of.get(other) != words)


def _other_voice(catalogue: Catalogue, position: int, other: int) -> bool:
    return catalogue.clip(other).speaker != catalogue.clip(position).speaker


def _several_parts(catalogue: Catalogue, position: int) -> Sequence[int]:
    parts = catalogue.parts_of.get(position, ())
    return parts if len(parts) > 1 else ()


def _clean(catalogue: Catalogue, position: int) -> Sequence[int]:
    speech = [i for i in catalogue.parts_of.get(position, ()) if catalogue.clip(i).kind == "speech"]
    return speech if len(speech) == 1 else ()


def _made_of_one(edited: bool) -> Callable[[Catalogue, int], Sequence[int]]:
    def candidates(catalogue: Catalogue, position: int) -> Sequence[int]:
        parts, clip = catalogue.parts_of.get(position, ()), catalogue.clip(position)
        return parts if len(parts) == 1 and clip.kind != "mixture" and bool(clip.instruction) == edited else ()

    return candidates


def _is_answer(catalogue: Catalogue, position: int, other: int) -> bool:
    return bool(catalogue.clip(other).instruction)


def _next(catalogue: Catalogue, position: int) -> Sequence[int]:
    return [after for this, after in pairwise(catalogue.recording_of.get(position, ())) if this == position]


# What a task may take its parts from, beside the clip that it is about.
RELATIONS: Mapping[str, Relation] = {
    # another clip of the same voice, in other words
    "speaker": Relation(_same_speaker, _other_words),
    # the same words in another voice
    "words": Relation(lambda catalogue, position: catalogue.same_text_of.get(position, ()), _other_voice),
    # one of the clips that it is made of, or all of them where there are several
    "part": Relation(lambda catalogue, position: catalogue.parts_of.get(position, ())),
    "parts": Relation(_several_parts, all_of_them=True),
    # the only speech that it is made of
    "clean": Relation(_clean),
    # what it was before it was edited, and before it was played in a room
    "original": Relation(_made_of_one(edited=True)),
    "dry": Relation(_made_of_one(edited=False)),
    # what follows in the same recording, and what answers it there
    "next": Relation(_next),
    "answer": Relation(_next, _is_answer),
}


def label_values(clips: Iterable[Clip]) -> Mapping[str, Sequence[str]]:
    """Label -> its values, sorted: the labels that can be asked about.

    Left out: labels with one value only, with more than MAX_LABEL_VALUES, and numbers (beats per minute), which are
    measured rather than named.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for label, value in clip.labels.items():
            if value:
                found[label].add(value)
    return {
        label: tuple(sorted(values))
        for label, values in sorted(found.items())
        if 1 < len(values) <= MAX_LABEL_VALUES and any(as_number(v) is None for v in values)
    }
