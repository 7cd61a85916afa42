"""Mixing: which sentence comes when. Sentence i of epoch e is a pure function of (seed, e, i)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.constructions import CONSTRUCTIONS
from auditory_sentences.builders.conversation import conversation, turns_about
from auditory_sentences.builders.few_shot import Episodes, Names
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, Task, build_around, cast_of, find_task, require_streams, streams_of
from auditory_sentences.rng import KeyedRng, permuted, stable_hash
from auditory_sentences.sentence import AuditorySentence, Segment
from codec.io.errors import UserError
from codec.streams import is_absent
from lm.vocabulary import VocabularyLayout

if TYPE_CHECKING:
    from auditory_sentences.token_store import JoinedStores, TokenStore

GUIDANCE_DROPOUT = 0.1  # share of generation sentences whose conditions are hidden (published model, §B.4)
# Tasks from after there were runs without them: their prompts count where they are used, so that those runs resume.
LATER_TASKS = {
    "prompt_tts", "prompt_instruct_tts", "voice_conversion", "speech_with_sound", "denoising", "dereverberation",
    "separation", "speaker_extraction", "speech_editing", "spoken_answer", "written_answer", "continuation",
    "structural_to_descriptive",
}  # fmt: skip
FEW_SHOT, CLASSIFICATION, CONVERSATION = "few_shot", "classification", "conversation"
ARBITRARY_NAMES = "arbitrary_names"  # classification whose classes have them


class SampledSentence(NamedTuple):
    """A sentence of the stream, ready for `to_rows`."""

    # what is said
    sentence: AuditorySentence
    # whether its conditions are to be hidden (`drop_conditions` of `to_rows`)
    drop_conditions: bool


class NoClips(UserError):
    """The data can make no sentence of an entry of a mixture, whose name is `entry`."""

    def __init__(self, entry: str, message: str) -> None:
        super().__init__(message)
        self.entry = entry


class Source(NamedTuple):
    """One entry of a mixture."""

    # in the mixture
    name: str
    # what one sentence each is built around: positions of clips, recordings, lines of text
    anchors: Sequence[Any]
    # (anchor, draws) -> the sentence
    build: Callable[[Any, KeyedRng], AuditorySentence]
    # whether guidance dropout applies
    generates_audio: bool = False


class SentenceStream:
    """A weighted mixture of tasks, constructions and few-shot episodes over one split of a token store.

    `stream[epoch, i]` for i < len(stream) takes O(1) time, whatever came before: no state, the same on any number of
    processes. An epoch has as many sentences as all sources together have anchors, in a random order, with the shares
    exact to the rounding of one sentence. After every epoch each anchor of a source has come as often as any other, to
    within one; which come more often changes from epoch to epoch.

    Args:
        store: Clips as tokens.
        mixture: Name -> weight, in any scale; the share of the sentences. Names: a task ("asr", "audio_qa",
            "audio_qa:instrument"), a construction ("segmented_audio"), "few_shot:TASK" (1 to 4 shots), "classification"
            or "classification:LABEL" (2 to 4 ways, 1 to 4 shots), the same with classes called by arbitrary words
            ("arbitrary_names", "arbitrary_names:LABEL"), "conversation" (2 to 4 unrelated requests).
        seed: Of the recipe.
        split: Of the store.
        max_rows: What constructions, episodes and audio_only fit themselves into: the context length of the stage.
        bank: Prompts; the project's own if not given.
        texts: What text_only says; without any, the transcriptions and captions of the clips.
        guidance_dropout: Share of the generation sentences whose conditions are hidden; 0 for validation.

    Raises:
        NoClips: The data can make no sentence of an entry.
        UserError: A name is unknown, or the weights are no shares.
    """

    def __init__(
        self,
        store: TokenStore | JoinedStores,
        mixture: Mapping[str, float],
        seed: int,
        split: str = "train",
        *,
        max_rows: int,
        bank: PromptBank | None = None,
        texts: Sequence[str] = (),
        guidance_dropout: float = GUIDANCE_DROPOUT,
    ) -> None:
        self.seed, self.split, self.max_rows, self.guidance_dropout = seed, split, max_rows, guidance_dropout
        self.catalogue = Catalogue(store, split)
        self.bank = (bank or PromptBank.load()).with_label_values(self.catalogue.label_values)
        self.episodes = Episodes(self.catalogue, self.bank)
        self.texts = texts
        weights = {name: weight for name, weight in sorted(mixture.items()) if weight != 0}
        if not weights or min(weights.values()) < 0:
            raise UserError(f"the mixture {dict(mixture)} needs at least one weight above 0 and none below")
        self.sources = [self._source(name) for name in weights]
        total = sum(len(source.anchors) for source in self.sources)
        scale = total / sum(weights.values())
        counts = [max(1, round(weight * scale)) for weight in weights.values()]
        self._ends = [sum(counts[: k + 1]) for k in range(len(counts))]
        self._counts = counts

    def __len__(self) -> int:
        """Sentences in one epoch."""
        return self._ends[-1]

    @property
    def shares(self) -> dict[str, tuple[int, int]]:
        """Source -> (sentences per epoch, anchors): what a run reports about its data."""
        rows = zip(self.sources, self._counts, strict=True)
        return {source.name: (count, len(source.anchors)) for source, count in rows}

    @property
    def hash(self) -> str:
        """Stable identity of the sentences and their order: data, texts, prompts, mixture, seed, split, limits."""
        phrasings = {name: getattr(self.bank, name) for name in ("prompts", "questions", "yes_no", "names")}
        used = {part for source in self.sources for part in source.name.split(":")}
        phrasings["prompts"] = {
            task: prompts for task, prompts in self.bank.prompts.items() if task in used or task not in LATER_TASKS
        }
        key = (
            self.catalogue.store.data_hash,
            stable_hash(*self.texts),
            json.dumps(phrasings, sort_keys=True),
            repr(self.shares),
            *(self.seed, self.split, self.max_rows, self.guidance_dropout),
        )
        return f"{stable_hash('stream', *key):016x}"

    def __getitem__(self, at: tuple[int, int]) -> SampledSentence:
        """Sentence i of epoch e. Raises IndexError for i outside [0, len(self)) or a negative epoch."""
        epoch, i = at
        if epoch < 0:
            raise IndexError(f"epoch {epoch} is negative")
        source, anchor = self.place(epoch, i)
        rng = KeyedRng(self.seed, self.split, "sentence", epoch, i)
        hide = source.generates_audio and rng.bernoulli(self.guidance_dropout)
        return SampledSentence(source.build(source.anchors[anchor], rng), hide)

    def place(self, epoch: int, i: int) -> tuple[Source, int]:
        """Which source sentence i of the epoch comes from, and the index of its anchor there."""
        slot = permuted(i, len(self), self.seed, self.split, "epoch", epoch)
        k = next(k for k, end in enumerate(self._ends) if slot < end)
        source, size = self.sources[k], len(self.sources[k].anchors)
        turn, step = divmod(epoch * self._counts[k] + slot - (self._ends[k] - self._counts[k]), size)
        return source, permuted(step, size, self.seed, self.split, source.name, turn)

    def _source(self, name: str) -> Source:
        """The mixture's entry of that name."""
        base, _, detail = name.partition(":")
        if name in CONSTRUCTIONS:
            construction = CONSTRUCTIONS[name]
            build_one = partial(construction.build, self.catalogue, max_rows=self.max_rows)
            source = Source(name, construction.anchors(self.catalogue), build_one)
        elif base == FEW_SHOT and detail:
            task = find_task(detail)
            eligible = self.episodes.eligible(task)
            source = Source(
                name,
                eligible if len(eligible) > 1 else (),
                partial(self.episodes.draw_of_task, task, max_rows=self.max_rows),
                task.generates_audio,
            )
        elif base in (CLASSIFICATION, ARBITRARY_NAMES):
            names: Names = "own" if base == CLASSIFICATION else "arbitrary"
            members = [i for i in self.catalogue.members if self._classes(i, detail, names)]
            draw = partial(self.episodes.draw_of_label, detail or None, max_rows=self.max_rows, names=names)
            source = Source(name, members, draw)
        elif name == CONVERSATION:
            members = [i for i in self.catalogue.members if turns_about(self.catalogue, i, self.bank)]
            source = Source(name, members, partial(conversation, self.catalogue, self.bank, max_rows=self.max_rows))
        elif base in TASKS:
            source = self._task(find_task(name))
        else:
            known = [*TASKS, *CONSTRUCTIONS, CONVERSATION, CLASSIFICATION, ARBITRARY_NAMES, f"{FEW_SHOT}:TASK"]
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known names: {', '.join(known)}"
            raise UserError(f"the mixture asks for '{name}', which is no task, construction or episode; {hint}")
        if not source.anchors:
            raise NoClips(
                name,
                f"the mixture asks for '{name}', but the split '{self.split}' of the data has no clips to make it of; "
                "take it out of the mixture or add such clips",
            )
        return source

    def _task(self, task: Task) -> Source:
        if task.name == "text_only" and self.texts:
            return Source(task.name, range(len(self.texts)), self._plain_text)
        catalogue = self.catalogue
        require_streams(task, [stream.name for stream in catalogue.store.streams])
        eligible = [i for i in catalogue.members if cast_of(task, catalogue, i, self.bank)]
        if task.name == "audio_only":
            return Source(task.name, eligible, self._audio_only)
        return Source(task.name, eligible, partial(self._example, task), task.generates_audio)

    def _example(self, task: Task, position: int, rng: KeyedRng) -> AuditorySentence:
        return build_around(task, self.catalogue, position, rng, self.bank)

    def _plain_text(self, line: int, rng: KeyedRng) -> AuditorySentence:
        return AuditorySentence((Segment("text", self.texts[line], is_target=True),), f"text_only:line {line}")

    def _audio_only(self, position: int, rng: KeyedRng) -> AuditorySentence:
        """The clip; of one that is longer than max_rows, a crop that fits, from another place every time."""
        clip = self.catalogue.stored(position)
        tokens, units = clip.tokens, self.catalogue.units
        most, whole = units.in_rows(self.max_rows), units.in_clip(tokens)
        if VocabularyLayout.row_count(tokens, "audio") > self.max_rows and 0 < most <= whole:
            tokens = units.crop(tokens, rng.randint(0, whole - most), most)
        return AuditorySentence((Segment("audio", tokens, is_target=True),), f"audio_only:{clip.id}")

    def _classes(self, position: int, label: str, names: Names) -> bool:
        clip = self.catalogue.clip(position)
        return self.episodes.can_classify(clip, label, names) if label else bool(self.episodes.class_labels(clip))


def absent_streams(mixture: Iterable[str], streams: Iterable[str]) -> dict[str, str]:
    """The entries of a mixture that a tokenizer's tokens cannot serve -> the stream that they are about and it lacks.

    Args:
        mixture: Names of entries, as SentenceStream takes them.
        streams: Names of the tokenizer's.

    Raises:
        UserError: An entry is about a stream that no kind of tokenizer has, or its task is unknown.
    """
    own, absent = tuple(streams), dict[str, str]()
    for name in mixture:
        base, _, detail = name.partition(":")
        asked = detail if base == FEW_SHOT else name
        if asked.partition(":")[0] in TASKS:
            for stream in streams_of(find_task(asked)):
                if is_absent(stream, own, f"the task '{name}'"):
                    absent.setdefault(name, stream)
    return absent
