"""The catalogue of a split: which clips belong together, by everything that auditory sentences link clips with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lm.words import as_number, normalise_words

if TYPE_CHECKING:
    from auditory_sentences.corpora.clip import Clip
    from auditory_sentences.lengths import Units
    from auditory_sentences.token_store import JoinedStores, StoredClip, TokenStore

MAX_LABEL_VALUES = 64  # a label with more values is a name or a measurement, not a class to ask about


class Catalogue:
    """What one split of a token store holds. Clips are known by their positions in the store; no tokens are held.

    Args:
        store: Clips as tokens.
        split: Whose clips count.
    """

    def __init__(self, store: TokenStore | JoinedStores, split: str) -> None:
        self.store = store
        self.split = split
        self.members: list[int] = []  # all clips of the split
        self.by_kind: dict[str, list[int]] = defaultdict(list)
        self.by_speaker: dict[str, list[int]] = defaultdict(list)  # speech alone
        self.by_label: dict[tuple[str, str, str], list[int]] = defaultdict(list)  # by kind, label and value
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
                    by_text[normalise_words(clip.text)].append((clip.speaker, i))
            if clip.parts:
                parts[i] = clip.parts
            for label, value in clip.labels.items():
                self.by_label[clip.kind, label, value].append(i)
        # Clips cut from one long recording, in order; at least two each (Clip.group and Clip.position).
        self.recordings = [tuple(i for _, i in sorted(group)) for group in by_group.values() if len(group) > 1]
        self.recording_of = {i: recording for recording in self.recordings for i in recording}
        # Clips that say the same words, by at least two speakers.
        self.same_text = [tuple(i for _, i in said) for said in by_text.values() if len({who for who, _ in said}) > 1]
        # Mixture -> its clean parts, where all of them are in this split.
        self.parts_of = {
            i: tuple(position_of[name] for name in names)
            for i, names in parts.items()
            if all(name in position_of for name in names)
        }
        # Of the whole store, all splits, so that training and evaluation offer the same.
        self.label_values = label_values(store.clips)

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

    def stored(self, position: int) -> StoredClip:
        """The clip with its tokens."""
        return self.store[position]


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
