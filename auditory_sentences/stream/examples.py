"""The first sentences of each entry of a mixture, as training draws them, with the clips that they are made of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from auditory_sentences.builders.constructions import CONSTRUCTIONS
from auditory_sentences.builders.conversation import conversation
from auditory_sentences.builders.few_shot import Episodes
from auditory_sentences.builders.tasks import Task, find_task, streams_of
from auditory_sentences.sentence import AuditorySentence, Segment, to_rows
from auditory_sentences.stream.mixing import (
    ARBITRARY_NAMES,
    CLASSIFICATION,
    CONVERSATION,
    FEW_SHOT,
    SampledSentence,
    SentenceStream,
)
from codec.streams import ALL_STREAMS
from lm.vocabulary import AUDIO_PROMPT

if TYPE_CHECKING:
    from auditory_sentences.token_store import JoinedStores, StoredClip, TokenStore
    from codec.tokens import AudioTokens
    from lm.text_tokenizer import TextTokenizer
    from lm.vocabulary import VocabularyLayout


_NAMES = {AUDIO_PROMPT: "voice"}  # of a role, where a reader knows another


# What a segment is to the loss of a stage.
MARKS = {
    "target": "the model learns to say it",
    "given": "it is read, and bears no loss",
    "hidden": "what is given is hidden this time (guidance dropout)",
    "no loss": "a target whose loss has no weight in this stage",
}


class Origin(NamedTuple):
    """Where the audio of a segment comes from."""

    # that holds it
    clip: StoredClip
    # where it begins in the clip, in seconds; None: it is the whole clip
    start: float | None = None

    @property
    def place(self) -> str:
        """For people: the clip's id, and the second that the audio begins at where it is a piece of the clip."""
        return f"clip {self.clip.id}" + ("" if self.start is None else f" from {self.start:.1f} s")


class LossWeights(NamedTuple):
    """Weights of a loss: what is not 0 is trained."""

    # of text
    text: float
    # of audio
    audio: float


class Example(NamedTuple):
    """A sentence at its place in the stream."""

    # of the stream
    epoch: int
    # in the epoch
    number: int
    # the sentence, and whether its conditions are hidden
    drawn: SampledSentence
    # of each segment; None of text
    origins: tuple[Origin | None, ...]
    # rows of each segment
    rows: tuple[int, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of the sentence."""
        return self.drawn.sentence.segments

    @property
    def total_rows(self) -> int:
        """Rows of the sentence."""
        return sum(self.rows)

    def marks(self, loss: LossWeights) -> tuple[str, ...]:
        """What each segment is to a loss, in MARKS."""
        marks = []
        for segment in self.segments:
            if segment.is_target:
                marks.append("target" if (loss.text if segment.is_text else loss.audio) else "no loss")
            else:
                marks.append("hidden" if self.drawn.drop_conditions else "given")
        return tuple(marks)

    def kept_rows(self, context: int) -> int:
        """Rows of the sentence; 0 where they are more than the context: packing leaves it out."""
        return self.total_rows if self.total_rows <= context else 0


class Entry(NamedTuple):
    """One entry of a mixture, with sentences that were drawn of it."""

    # as the mixture names it
    name: str
    # in the mixture
    weight: float
    # what it is, for people
    about: str
    # of the stream's sentences, in [0, 1]
    share: float = 0.0
    # of its rows, in [0, 1], estimated from the sentences here; None where that takes sentences that are not here
    share_of_rows: float | None = None
    # things that one sentence each is built around: clips, recordings, lines of text
    anchors: int = 0
    # its first sentences in the stream
    examples: Sequence[Example] = ()
    # why there are none; "" where there are
    reason: str = ""


class WatchedStore:
    """A token store that remembers which clips were read.

    Args:
        store: Whose clips these are.
    """

    def __init__(self, store: TokenStore | JoinedStores) -> None:
        self.store = store
        self.seen: list[StoredClip] = []

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> StoredClip:
        clip = self.store[index]
        self.seen.append(clip)
        return clip

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def origins(self, segments: Sequence[Segment]) -> tuple[Origin | None, ...]:
        """Where the audio of each segment comes from, among the clips that were read; None of text."""
        found: list[Origin | None] = []
        for segment in segments:
            after = next((origin for origin in reversed(found) if origin), None)
            found.append(None if segment.is_text else self._origin(segment.tokens, after))
        return tuple(found)

    def described(self, segment: Segment, origin: Origin | None) -> str:
        """What a segment of audio is: its length, the one stream that it is where it is not all, and its clip."""
        tokens, what = segment.tokens, "audio" if segment.role in (ALL_STREAMS, AUDIO_PROMPT) else segment.role
        alone = "" if what == "audio" else " tokens alone, of"
        where = f", {origin.place}" if origin else ""
        return f"{what}{alone} {tokens.num_samples / self.store.sample_rate:.1f} s{where}"

    def _origin(self, tokens: AudioTokens, after: Origin | None) -> Origin | None:
        for clip in self.seen:
            if clip.tokens is tokens:
                return Origin(clip)
        units = self.store.units
        count = units.in_clip(tokens)
        for clip in self.seen:
            places = range(units.in_clip(clip.tokens) - count + 1) if count else range(0)
            starts = [k * units.seconds for k in places if units.crop(clip.tokens, k, count).equal(tokens)]
            if starts:  # several where a sound repeats itself: pieces of one clip come one after the other
                end = after.start if after and after.clip.id == clip.id and after.start is not None else -1.0
                return Origin(clip, min(starts, key=lambda start: (start <= end, start)))
        return None


def examples(
    stream: SentenceStream,
    watched: WatchedStore,
    layout: VocabularyLayout,
    tokenizer: TextTokenizer,
    count: int,
    only: Collection[str] = (),
) -> dict[str, list[Example]]:
    """The first sentences of each entry from the start of the stream on: what a run that begins now reads.

    Args:
        stream: Over `watched`.
        watched: The store that the stream draws from.
        layout: Vocabulary of the model, which counts the rows.
        tokenizer: Of text.
        count: Sentences of each entry.
        only: Names of entries; none: all.

    Returns:
        Name of the entry -> its sentences, in the stream's order.
    """
    wanted = [name for name in stream.shares if not only or name in only]
    found: dict[str, list[Example]] = {name: [] for name in wanted}
    missing = count * len(wanted)
    for epoch, i in _places(stream):
        if not missing:
            break
        name = stream.place(epoch, i)[0].name
        if len(found.get(name, range(count))) >= count:
            continue
        watched.seen.clear()
        drawn = stream[epoch, i]
        segments = drawn.sentence.segments
        rows = tuple(len(to_rows(AuditorySentence((segment,)), layout, tokenizer)) for segment in segments)
        found[name].append(Example(epoch, i, drawn, watched.origins(segments), rows))
        missing -= 1
    return found


def _places(stream: SentenceStream) -> Iterator[tuple[int, int]]:
    epoch = 0
    while True:
        yield from ((epoch, i) for i in range(len(stream)))
        epoch += 1


def about(name: str) -> str:
    """What an entry of a mixture is, in the words of those who build it.

    Raises:
        UserError: There is no such task.
    """
    base, _, detail = name.partition(":")
    if name in CONSTRUCTIONS:
        number, construction = list(CONSTRUCTIONS).index(name) + 1, CONSTRUCTIONS[name]
        return f"Construction {number} of UniAudio 2.0 §4.4, {construction.title}. {_said_of(construction.groups)}"
    if name == CONVERSATION:
        return _said_of(conversation)
    if base in (CLASSIFICATION, ARBITRARY_NAMES):
        told = " The classes are called by words drawn for the episode." if base == ARBITRARY_NAMES else ""
        return _said_of(Episodes.draw_of_label) + told
    if base == FEW_SHOT:
        return f"{_said_of(Episodes.draw_of_task)} {_parts_of(find_task(detail))}"
    return _parts_of(find_task(name))


def _said_of(builder: Callable[..., Any]) -> str:
    """The docstring of a builder, up to its arguments."""
    return " ".join((inspect.getdoc(builder) or "").partition("\nArgs:")[0].split())


def _parts_of(task: Task) -> str:
    """The task's line in the table, as a sentence."""

    def named(is_target: bool) -> str:
        names = []
        for part in task.parts:
            if part.is_target == is_target:
                what = _NAMES.get(part.role, part.content.replace("_", " ") if part.role == "text" else part.role)
                what += " tokens" if part.role in streams_of(task) else ""
                names.append(f"{what} ({part.of})" if part.of else what)
        return ", ".join(names)

    given = ", ".join(filter(None, ["prompt" if task.prompted else "", named(False)]))
    return f"Task {task.name}: {f'given {given}; ' if given else ''}learned {named(True)}."
