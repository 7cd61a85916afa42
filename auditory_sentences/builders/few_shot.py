"""Few-shot episodes: solved examples and then a query, as one sentence, for stage 4 and for evaluation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

from auditory_sentences.builders.arbitrary_names import is_held_out, name_words
from auditory_sentences.builders.catalogue import Cast, Catalogue
from auditory_sentences.builders.prompts import PromptBank, listed
from auditory_sentences.builders.tasks import (
    QUESTIONS,
    Task,
    askable_labels,
    build,
    cast_of,
    find_task,
    prompt_segments,
    task_segments,
)
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import AuditorySentence, Segment
from codec.io.errors import UserError
from codec.streams import ALL_STREAMS
from lm.words import normalise_words

if TYPE_CHECKING:
    from auditory_sentences.corpora.clip import Clip
    from auditory_sentences.token_store import StoredClip

MAX_SHOTS, MAX_WAYS = 4, 4  # of what training draws
SPEAKER = "speaker"  # the label whose values are the voices, where clips have no label of that name
# What classes are called: as they are labelled, by arbitrary words, or by those that training never uses.
Names = Literal["own", "arbitrary", "held_out"]


class TooFewExamples(UserError):
    """The pool has fewer clips than shots that may stand beside the query."""


class Episode(NamedTuple):
    """A classification episode and the answers it allows."""

    # prompt, examples and the query with its answer
    sentence: AuditorySentence
    # values of the label, in the order in which the prompt names them
    options: tuple[str, ...]


class Episodes:
    """Episodes whose examples come from one split.

    Every answer is learned, the examples' too. `builders.tasks.request_of` cuts off the query's answer.
    Neither the query, nor another piece of its recording, nor a mixture it is in, nor one of its parts is ever an
    example; where words are the answer or the condition, no example says the query's words.

    shot_audio is "audio", or names the one stream that the examples' audio is given as; the query's is given in full.
    As descriptive tokens alone, a clip of 1.5 s takes 10 rows instead of 31, so that four examples of each of four
    classes fit into 512 rows. What only the structural tokens carry (a speaker's voice, the exact pitch) is then
    missing from the examples.

    Args:
        pool: Where the examples are taken from; in evaluation another split than the query's.
        bank: Prompts and label values.
    """

    def __init__(self, pool: Catalogue, bank: PromptBank) -> None:
        self.pool = pool
        self.bank = bank
        self._eligible: dict[str, list[int]] = {}
        self._name_words: dict[str, list[str]] = defaultdict(list)

    def from_task(
        self,
        task: Task | str,
        query: StoredClip,
        shots: int,
        rng: KeyedRng,
        shot_audio: str = ALL_STREAMS,
        cast: Cast | None = None,
    ) -> AuditorySentence:
        """Prompt, `shots` solved examples, the query with its answer. With 0 shots what `tasks.build` gives.

        Questions ask about the same label in all examples.

        Args:
            task: Or its name.
            query: The clip that the episode ends with.
            shots: Number of examples.
            rng: Chooses prompt, questions and examples.
            shot_audio: Role of the examples' audio.
            cast: The clips that fill the parts of others than the query, where the task has such parts.

        Raises:
            TooFewExamples: The pool has too few other clips.
            UserError: The query cannot serve the task.
            ValueError: `shot_audio` is not all of the audio, and audio is what the task answers with.
        """
        task = find_task(task) if isinstance(task, str) else task
        if shots == 0:
            return build(task, query, rng, self.bank, cast)
        if shot_audio != ALL_STREAMS and any(part.is_target and part.content == "audio" for part in task.parts):
            raise ValueError(f"the examples of '{task.name}' must be whole audio: audio is what the query's answer is")
        if task.label is None and any(part.content in QUESTIONS for part in task.parts):
            label = rng.choice(askable_labels(task, query, self.bank) or [""])
            task = replace(task, label=label or None)
        candidates = self.eligible(task)
        segments = list(prompt_segments(task, rng, self.bank))
        says_words = any(part.content == "text" for part in task.parts)
        about = [query, *(clip for clips in cast.clips.values() for clip in clips)] if cast else [query]
        for example in self._examples(candidates, shots, about, rng, task.name, task, other_words=says_words):
            shown = self.pool.stored_cast(example)
            solved = task_segments(task, shown.clips[""][0], rng, self.bank, shown)
            segments += [_as_shot(segment, shot_audio) for segment in solved]
        segments += task_segments(task, query, rng, self.bank, cast)
        return AuditorySentence(tuple(segments), f"few_shot:{task.name}:{shots}:{query.id}")

    def of_label(
        self,
        label: str,
        query: StoredClip,
        ways: int,
        shots: int,
        rng: KeyedRng,
        shot_audio: str = ALL_STREAMS,
        names: Names = "own",
    ) -> Episode:
        """`shots` examples of each of `ways` values of the label, shuffled, then the query: which of them is it?

        Args:
            label: That the clips are classified by; "speaker" where the classes are voices.
            query: The clip that the episode ends with.
            ways: Number of values; fewer where fewer have enough examples.
            shots: Examples of each value.
            rng: Chooses prompt, values and examples.
            shot_audio: Role of the examples' audio.
            names: What the classes are called: as they are labelled, or by words drawn for this episode, which only
                the examples explain: of those that training uses, or held out from it.

        Raises:
            TooFewExamples: No second value has enough examples.
            UserError: The query has no such label, or its values are no names that could be answered with.
        """
        answer, values = class_of(query, label), self._values(label, names)
        if not answer or answer not in values:
            raise UserError(f"the clip '{query.id}' has no label '{label}' to be classified by; choose another label")
        others = [v for v in values if v != answer and len(self._clips(query.kind, label, v)) >= max(shots, 1)]
        options = rng.shuffled([answer, *rng.sample(others, ways - 1)])
        if len(options) < 2:
            raise TooFewExamples(
                f"split '{self.pool.split}' has no second value of '{label}' with {shots} clips of {query.kind}; "
                "ask for fewer shots"
            )
        examples = [
            (cast[""][0], value)
            for value in options
            for cast in self._examples(self._clips(query.kind, label, value), shots, [query], rng, f"{label} = {value}")
        ]
        answers = options if names == "own" else rng.sample(self._words(names), len(options))
        called = dict(zip(options, answers, strict=True))
        prompt = self.bank.prompt("classification", rng).format(label=self.bank.name(label), options=listed(answers))
        segments = [Segment("prompt", prompt)]
        for i, value in rng.shuffled(examples):
            audio = _as_shot(Segment("audio", self.pool.stored(i).tokens), shot_audio)
            segments += [audio, Segment("text", called[value], is_target=True)]
        segments += [Segment("audio", query.tokens), Segment("text", called[answer], is_target=True)]
        name = f"classification:{label}:{len(options)}x{shots}:{query.id}"
        return Episode(AuditorySentence(tuple(segments), name), tuple(answers))

    @property
    def short_stream(self) -> str:
        """The stream that stands for a clip where all of them take too many rows: the first; "" where it is alone."""
        streams = self.pool.store.streams
        return streams[0].name if len(streams) > 1 else ""

    def eligible(self, task: Task) -> Sequence[int]:
        """Positions of the pool's clips that can serve the task."""
        key = f"{task.name} {task.label}"
        if key not in self._eligible:
            pool = self.pool
            self._eligible[key] = [i for i in pool.members if cast_of(task, pool, i, self.bank)]
        return self._eligible[key]

    def draw_of_task(self, task: Task, position: int, rng: KeyedRng, max_rows: int) -> AuditorySentence:
        """A few-shot episode around a clip of the pool: 1 to 4 solved examples, or as many as there are and fit.

        Args:
            task: That all examples are of.
            position: Of the clip in the pool.
            rng: Draws the number of shots and all else.
            max_rows: Of the sentence.
        """
        cast = None
        if task.paths:
            cast = self.pool.stored_cast(cast_of(task, self.pool, position, self.bank, rng) or {"": (position,)})
        query = self.pool.stored(position)
        says_audio = any(part.is_target and part.content == "audio" for part in task.parts)

        def episode(shots: int, rng: KeyedRng, shot_audio: str) -> AuditorySentence:
            return self.from_task(task, query, shots, rng, shot_audio, cast)

        return _largest_that_fits(episode, rng, max_rows, "" if says_audio else self.short_stream)

    def draw_of_label(
        self, label: str | None, position: int, rng: KeyedRng, max_rows: int, names: Names = "own"
    ) -> AuditorySentence:
        """A few-shot episode that classifies a clip of the pool: 2 to 4 classes, 1 to 4 solved examples of each.

        Args:
            label: To classify by; None: one of the clip's own, drawn.
            position: Of the clip in the pool.
            rng: Draws the numbers of ways and shots and all else.
            max_rows: Of the sentence.
            names: What the classes are called.
        """
        query = self.pool.stored(position)
        chosen, ways = label or rng.choice(self.class_labels(query)), rng.randint(2, MAX_WAYS)

        def episode(shots: int, rng: KeyedRng, shot_audio: str) -> AuditorySentence:
            return self.of_label(chosen, query, ways, shots, rng, shot_audio, names).sentence

        # Whose voice it is can only be heard in full.
        return _largest_that_fits(episode, rng, max_rows, "" if chosen == SPEAKER else self.short_stream)

    def class_labels(self, clip: Clip) -> list[str]:
        """The clip's labels by which an episode of the pool can classify it: another value of the label is there."""
        return [label for label in sorted(clip.labels) if self.can_classify(clip, label)]

    def can_classify(self, clip: Clip, label: str, names: Names = "own") -> bool:
        """Whether an episode of the pool can classify the clip by a label: it has it, and another value is there."""
        answer, values = class_of(clip, label), self._values(label, names)
        return answer in values and any(v != answer and self._clips(clip.kind, label, v) for v in values)

    def _values(self, label: str, names: Names) -> Collection[str]:
        """Of a label. Voices have no names that could be answered with, but they can be given some."""
        if label == SPEAKER and label not in self.bank.label_values:
            return self.pool.by_speaker if names != "own" else ()
        return self.bank.label_values.get(label, ())

    def _words(self, names: Names) -> Sequence[str]:
        """The words that may name classes: those that are held out from training, or the others."""
        if not self._name_words:
            values = [value for values in self.bank.label_values.values() for value in values]
            for word in name_words(self.pool.store.clips, values):
                self._name_words["held_out" if is_held_out(word) else "arbitrary"].append(word)
        return self._name_words[names]

    def _clips(self, kind: str, label: str, value: str) -> Sequence[int]:
        """Positions of the pool's clips of that kind with that value."""
        found = self.pool.by_label.get((kind, label, value), ())
        return found or (self.pool.by_speaker.get(value, ()) if (kind, label) == ("speech", SPEAKER) else ())

    def _examples(
        self,
        candidates: Sequence[int],
        count: int,
        about: Sequence[Clip],
        rng: KeyedRng,
        what: str,
        task: Task | None = None,
        other_words: bool = False,
    ) -> list[Mapping[str, tuple[int, ...]]]:
        """Casts of `count` different candidates that give nothing away of what the query, the first, is about."""
        seed = rng.randrange(1 << 62)
        words = normalise_words(about[0].text) if other_words else None
        for looked_at in (count + 8, 8 * count + 64, len(candidates)):
            casts = (
                cast_of(task, self.pool, i, self.bank, KeyedRng("cast", seed, i)) if task and task.paths else {"": (i,)}
                for i in KeyedRng("examples", seed).sample(candidates, looked_at)
                if words is None or normalise_words(self.pool.clip(i).text) != words
            )
            fair = (cast for cast in casts if not self._gives_away(cast, about))
            chosen = list(islice(fair, count))
            if len(chosen) == count:
                return chosen
        raise TooFewExamples(
            f"split '{self.pool.split}' has {len(chosen)} clips that can be examples of {what} for '{about[0].id}', "
            f"and {count} are asked for; ask for fewer shots"
        )

    def _gives_away(self, cast: Mapping[str, tuple[int, ...]], about: Sequence[Clip]) -> bool:
        return any(_related(self.pool.clip(i), clip) for found in cast.values() for i in found for clip in about)


def class_of(clip: Clip, label: str) -> str:
    """What an episode classifies the clip as: the label's value, or whose voice it is; "" for none."""
    return clip.labels.get(label, "") or (clip.speaker if label == SPEAKER else "")


def _related(clip: Clip, query: Clip) -> bool:
    """Whether the clip would give the query away: itself, the same recording, a mixture with it or a part of it."""
    return (
        clip.id == query.id
        or bool(clip.group and clip.group == query.group)
        or query.id in clip.parts
        or clip.id in query.parts
        or not set(clip.parts).isdisjoint(query.parts)
    )


def _as_shot(segment: Segment, shot_audio: str) -> Segment:
    return replace(segment, role=shot_audio) if segment.role == "audio" else segment


def _largest_that_fits(
    episode: Callable[[int, KeyedRng, str], AuditorySentence], rng: KeyedRng, max_rows: int, short_stream: str
) -> AuditorySentence:
    """The episode with the drawn number of shots, 1 to 4; with fewer where there are fewer or too many rows.

    With a `short_stream`, the shots' audio is that stream alone half of the time, and where only that fits.
    """
    most, seed = rng.randint(1, MAX_SHOTS), rng.randrange(1 << 62)
    roles: tuple[str, ...] = (ALL_STREAMS,)
    if short_stream:
        roles = (short_stream,) if rng.bernoulli(0.5) else (ALL_STREAMS, short_stream)
    for shots in range(most, 0, -1):
        for role in roles:
            try:
                sentence = episode(shots, KeyedRng("episode", seed), role)
            except TooFewExamples:
                continue
            if row_limit(sentence.segments) <= max_rows:
                return sentence
    return episode(0, KeyedRng("episode", seed), ALL_STREAMS)
