"""Test items: which clips a task asks about, and each request as an auditory sentence, with shots or without."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from auditory_sentences.builders.catalogue import MAX_LABEL_VALUES, Catalogue
from auditory_sentences.builders.few_shot import Episodes
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import build, find_task, is_eligible, request_of
from auditory_sentences.corpora.read import Clip
from auditory_sentences.rng import KeyedRng, stable_hash
from auditory_sentences.sentence import AuditorySentence
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from evaluation.judges.pool import mentioned
from evaluation.task import Data, Score, Task
from lm.words import normalise_words

if TYPE_CHECKING:
    from auditory_sentences.token_store import JoinedStores, StoredClip, TokenStore


@dataclass(frozen=True)
class Item:
    """One request with its right answer.

    tokens: of the clip, None for a reconstruction, whose tokens are the answer
    sentence: what the model is given; role: of the segment it is asked for
    question: the text of the query itself, without prompt and examples
    answer: content of that segment; options: the values that a classification episode allows, () elsewhere
    """

    id: str
    clip: Clip
    tokens: AudioTokens | None
    sentence: AuditorySentence
    role: str
    answer: str | AudioTokens | None
    question: str = ""
    options: tuple[str, ...] = ()

    @cached_property
    def recording(self) -> np.ndarray:
        """The original waveform (n,) float32 at 24 kHz. Raises UserError where its file cannot be read."""
        return load_audio(self.clip.path).numpy()

    @cached_property
    def unreadable(self) -> str:
        """Why the recording cannot be read; "" where it can."""
        try:
            return "" if len(self.recording) else f"{self.clip.path}: holds no sound"
        except UserError as error:
            return str(error)

    def reference(self, score: Score) -> str:
        """The right reading under a score: the label's value, the value the right answer names, or the words."""
        if score.label and not score.choices:
            return self.clip.labels[score.label]
        if isinstance(self.answer, str):
            return normalise_words(self.answer)
        return self.clip.text


class Questions:
    """Builds the items of any task from a token store: queries from the task's split, examples from training.

    bank: the words that the model knows tasks by; None: ours
    """

    def __init__(self, store: TokenStore | JoinedStores, seed: int = 0, bank: PromptBank | None = None) -> None:
        self.store = store
        self.seed = seed
        self.examples = Catalogue(store, "train")
        self.bank = (bank or PromptBank.load()).with_label_values(self.examples.label_values)
        self._episodes = Episodes(self.examples, self.bank)

    def items(self, task: Task, shots: int, limit: int | None) -> list[Item]:
        """At most `limit` items, the same for the same seed, store and task; the same clips for any number of shots.

        Raises UserError where the store holds no clip that the task can ask about.
        """
        if task.is_reconstruction:
            clips = [self.store.clips[i] for i in self.places(task, limit)]
            return [
                Item(clip.id, clip, None, AuditorySentence((), f"{task.task}:{clip.id}"), "audio", None)
                for clip in clips
            ]
        return [self._item(task, shots, self.store[i]) for i in self.places(task, limit)]

    def places(self, task: Task, limit: int | None) -> list[int]:
        """Positions in the store of the clips that a task asks about.

        Raises UserError where there are none, saying what the store has instead, and where a label that is asked about
        has no two values.
        """
        wanted, clips = task.data, self.store.clips
        found = [i for i, clip in enumerate(clips) if clip.kind == wanted.kind and _is_wanted(wanted, clip)]
        labels = "".join(f", {label} = {value}" for label, value in wanted.labels.items())
        described = f"{wanted.kind} in split '{wanted.split}'{labels}"
        if wanted.source:
            described += f" from '{wanted.source}'"
        if not found:
            splits = Counter(clip.split for clip in clips if clip.kind == wanted.kind)
            there = ", ".join(f"{n} in split '{split}'" for split, n in sorted(splits.items())) or "none"
            raise UserError(
                f"the task '{task.task}' finds no clip of {described} (of {wanted.kind} there are {there}); evaluate "
                "on a token store or corpus that has some, or leave the task out"
            )
        for label in _labels_of(task):
            labelled = [i for i in found if clips[i].labels.get(label)]
            if not labelled:
                known = sorted({name for i in found for name, value in clips[i].labels.items() if value})[:12]
                raise UserError(
                    f"the task '{task.task}' needs the label '{label}', which none of the {len(found)} clips of "
                    f"{described} has (their labels: {', '.join(known) or 'none'}); add it to the corpus and build the "
                    "store again, or leave the task out"
                )
            found = labelled
        self._require_classes(task)
        if any(score.judge == "recogniser" for score in task.scores):
            found = [i for i in found if clips[i].text] or self._none_fit(task, found, described, "have a text")
        if not task.episode and not task.is_reconstruction:
            asked = find_task(task.request)
            fitting = [i for i in found if is_eligible(asked, clips[i], self.bank)]
            found = fitting or self._none_fit(task, found, described, f"serve the request '{task.request}'")
        found.sort(key=lambda i: stable_hash("item", self.seed, clips[i].id))
        if wanted.spread:
            found = _dealt(found, [clips[i].labels[wanted.spread] for i in found])
        return found[:limit]

    def _none_fit(self, task: Task, found: Sequence[int], described: str, what: str) -> NoReturn:
        raise UserError(
            f"the task '{task.task}' finds no clip that can {what} among the {len(found)} of {described}: they lack "
            "texts, captions or labels that it needs; evaluate on a store that has them, or leave the task out"
        )

    def _require_classes(self, task: Task) -> None:
        """Raise UserError where a label whose value is asked for has fewer than two in the store."""
        asked = [task.episode.label] if task.episode else []
        asked += [s.label for s in task.scores if s.label and not s.choices and s.judge in ("named", "likeliest")]
        for label in asked:
            if label not in self.bank.label_values:
                values = {clip.labels[label] for clip in self.store.clips if clip.labels.get(label)}
                raise UserError(
                    f"the task '{task.task}' tells values of the label '{label}' apart, of which the store has "
                    f"{len(values)} ({', '.join(sorted(values)[:3])}{', ...' if len(values) > 3 else ''}); it takes 2 "
                    f"to {MAX_LABEL_VALUES}, no numbers; evaluate on another store, or leave the task out"
                )

    def choices(self, score: Score, item: Item) -> dict[str, tuple[str, ...]]:
        """value -> the normalised phrases that name it, for a score whose judge chooses among values."""
        values = score.choices or item.options or self.bank.label_values.get(score.label, ())
        return {value: tuple(map(normalise_words, (value, *score.phrases.get(value, ())))) for value in values}

    def number_of_choices(self, score: Score, item: Item) -> int:
        """How many answers a guess has: those that the request names, or all."""
        phrases = self.choices(score, item)
        if item.options:
            return len(item.options)
        named = mentioned(normalise_words(item.question), phrases) if isinstance(item.answer, str) else set()
        return len(named) if len(named) > 1 and not score.choices else len(phrases)

    def _item(self, task: Task, shots: int, clip: StoredClip) -> Item:
        rng = KeyedRng("evaluation", self.seed, task.task, clip.id)
        options: tuple[str, ...] = ()
        if task.episode:
            e = task.episode
            sentence, options = self._episodes.of_label(e.label, clip, e.ways, shots, rng, e.examples_as)
        elif shots:
            sentence = self._episodes.from_task(task.request, clip, shots, rng)
        else:
            sentence = build(task.request, clip, rng, self.bank)
        if all(
            segment.is_target for segment in sentence.segments
        ):  # nothing is given: only its likelihood can be asked
            (only,) = sentence.segments
            return Item(clip.id, clip, clip.tokens, sentence, only.role, only.content)
        request = request_of(sentence)
        parts = 2 if task.episode else len(find_task(task.request).parts)
        query = request.sentence.segments[-(parts - 1) :]  # prompt and examples stand before it
        question = " ".join(segment.content for segment in query if segment.is_text)
        return Item(clip.id, clip, clip.tokens, request.sentence, request.role, request.reference, question, options)


def _is_wanted(wanted: Data, clip: Clip) -> bool:
    return (
        wanted.split in ("any", clip.split)
        and clip.source.startswith(wanted.source)
        and all(clip.labels.get(label) == value for label, value in wanted.labels.items())
    )


def _labels_of(task: Task) -> list[str]:
    """Labels that a clip must have: those that items are spread over, scored by or classified by."""
    named = [task.data.spread, *(score.label for score in task.scores), task.episode.label if task.episode else ""]
    return [label for label in dict.fromkeys(named) if label]


def _dealt(places: Sequence[int], values: Sequence[str]) -> list[int]:
    """Places in such an order that every beginning holds each value as evenly as there are clips of it."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for at, (place, value) in enumerate(zip(places, values, strict=True)):
        order.append((turns[value], at, place))
        turns[value] += 1
    return [place for *_, place in sorted(order)]
