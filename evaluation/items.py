"""Test items: which clips a task is about, and each request as an auditory sentence, with what would be right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from auditory_sentences.builders.catalogue import MAX_LABEL_VALUES, Catalogue, ClipStore
from auditory_sentences.builders.few_shot import SPEAKER, Episodes, Names, class_of
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import cast_of, find_task, request_of
from auditory_sentences.corpora.read import Clip
from auditory_sentences.rng import KeyedRng, stable_hash
from auditory_sentences.sentence import AuditorySentence
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from evaluation.metrics.registry import METRICS
from evaluation.phrases import label_in_text, labels_in_text
from evaluation.task import JUDGES, OF_RECORDING, Data, EvalTask, Score
from lm.words import normalise_words

if TYPE_CHECKING:
    from auditory_sentences.token_store import StoredClip


@dataclass(frozen=True)
class Target:
    """What one score compares the answer to an item with."""

    # the label's value, or the words, that would be right; None where the right answer names no value
    reference: str | None
    # value -> the normalised phrases that name it; empty where no value is chosen
    phrases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    # number of answers that a guess has: those that the request names, or all values; 0 where no value is chosen
    num_choices: int = 0


@dataclass(frozen=True)
class Item:
    """One request with all that its answer is compared with."""

    # of the clip that is asked about, unique in the task
    id: str
    # what is known about the clip that the right answer is of: the same one, but where the task says another
    clip: Clip
    # that clip's tokens; None for a reconstruction, whose tokens are the answer
    tokens: AudioTokens | None
    # what the model is given; empty for a reconstruction
    sentence: AuditorySentence
    # role of the segment that is asked for
    role: str
    # the right content of that segment; None for a reconstruction
    answer: str | AudioTokens | None
    # name of a score -> what it compares with
    targets: Mapping[str, Target]
    # the clip whose recording the request gives, where the answer is another version of it; None elsewhere
    given: Clip | None = None
    # of a request that is answered with all parts of a mixture, which of them this is, from 0
    part: int = 0

    @cached_property
    def given_recording(self) -> np.ndarray | None:
        """The waveform (n,) at 24 kHz that the request gives; None where there is none, or it cannot be read."""
        try:
            return None if self.given is None else load_audio(self.given.path).numpy()
        except UserError:
            return None

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


class ItemBuilder:
    """Builds the items of any task from a token store: queries from the task's split, examples from training."""

    def __init__(self, store: ClipStore, seed: int = 0, bank: PromptBank | None = None) -> None:
        """Read the store's records.

        Args:
            store: The clips with their tokens; for reconstructions, clips alone (evaluation/recordings.py).
            seed: Another one gives other items, prompts and examples.
            bank: The prompts that the model was trained with; None for the project's own.
        """
        self.store = store
        self.seed = seed
        self._catalogues: dict[str, Catalogue] = {}
        self._episodes: dict[str, Episodes] = {}
        self.bank = (bank or PromptBank.load()).with_label_values(self._catalogue("train").label_values)

    def items(self, task: EvalTask, shots: int, limit: int | None) -> list[Item]:
        """The items of a task: the same for the same seed, store and task, the same clips for any number of shots.

        Args:
            task: The task.
            shots: Number of solved examples, for a classification of each class.
            limit: Largest number of requests; None for no limit.

        A mixture whose parts are asked for is an item for each part, in their order.

        Raises:
            UserError: The store holds no clip for this task.
        """
        return [item for i in self.positions(task, limit) for item in self._items(task, shots, i)]

    def positions(self, task: EvalTask, limit: int | None) -> list[int]:
        """Positions in the store of the clips that a task is about, at most `limit`.

        Raises:
            UserError: There are none (the message lists what the store has instead), or a label that is asked about
                has no two values.
        """
        data, clips = task.data, self.store.clips
        selected = [i for i, clip in enumerate(clips) if _is_selected(data, clip)]
        labels = "".join(f", {label} = {value}" for label, value in data.labels.items())
        described = f"{data.kind} in split '{data.split}'{labels}"
        if data.source:
            described += f" from '{data.source}'"
        missing = getattr(self.store, "missing", {})  # of data sets (evaluation/datasets)
        if not selected and data.source in missing:
            raise UserError(f"the task '{task.task}' has no clips: {missing[data.source]}")
        if not selected:
            splits = Counter(clip.split for clip in clips if clip.kind == data.kind)
            there = ", ".join(f"{n} in split '{split}'" for split, n in sorted(splits.items())) or "none"
            raise UserError(
                f"the task '{task.task}' finds no clip of {described} (of {data.kind} there are {there}); evaluate "
                "on a token store or corpus that has some, or leave the task out"
            )
        for label in _labels_of(task):
            labelled = [i for i in selected if class_of(clips[i], label)]
            if not labelled:
                known = sorted({name for i in selected for name, value in clips[i].labels.items() if value})[:12]
                raise UserError(
                    f"the task '{task.task}' needs the label '{label}', which none of the {len(selected)} clips of "
                    f"{described} has (their labels: {', '.join(known) or 'none'}); add it to the corpus and build the "
                    "store again, or leave the task out"
                )
            selected = labelled
        self._require_classes(task)
        about_itself = task.is_of_codec or task.classification or not find_task(task.request).paths
        if about_itself and any(score.scorer == "recogniser" for score in task.scores):
            selected = [i for i in selected if clips[i].text] or _none_fit(task, selected, described, "have a text")
        if not task.classification and not task.is_of_codec:
            request, catalogue = find_task(task.request), self._catalogue(data.split)
            fitting = [i for i in selected if cast_of(request, catalogue, i, self.bank)]
            selected = fitting or _none_fit(task, selected, described, f"serve the request '{task.request}'")
        selected.sort(key=lambda i: stable_hash("item", self.seed, clips[i].id))
        if data.spread:
            selected = _dealt(selected, [class_of(clips[i], data.spread) for i in selected])
        return selected[:limit]

    def _require_classes(self, task: EvalTask) -> None:
        """Raise UserError where a label whose value is asked for has fewer than two in the store."""
        labels = [task.classification.label] if task.classification else []
        labels += [
            score.label
            for score in task.scores
            if score.label and not score.choices and score.scorer in ("label_in_text", "max_likelihood")
        ]
        for label in labels:
            if label == SPEAKER and label not in self.bank.label_values and task.classification:
                if not task.classification.arbitrary_names:
                    raise UserError(
                        f"the task '{task.task}' classifies voices, which have no names to answer with; give them some "
                        "with `arbitrary_names: true`"
                    )
            elif label not in self.bank.label_values:
                values = {clip.labels[label] for clip in self.store.clips if clip.labels.get(label)}
                raise UserError(
                    f"the task '{task.task}' tells values of the label '{label}' apart, of which the store has "
                    f"{len(values)} ({', '.join(sorted(values)[:3])}{', ...' if len(values) > 3 else ''}); it takes 2 "
                    f"to {MAX_LABEL_VALUES}, no numbers; evaluate on another store, or leave the task out"
                )

    def _items(self, task: EvalTask, shots: int, position: int) -> list[Item]:
        """The request around a clip: one item, or one for each of its answers."""
        if task.is_reconstruction:
            clip = self.store.clips[position]
            sentence = AuditorySentence((), f"{task.task}:{clip.id}")
            return [Item(clip.id, clip, None, sentence, "audio", None, self._targets(task, clip))]
        query = self.store[position]
        sentence, options, cast = self._sentence(task, shots, query, position)
        parts = () if task.classification else find_task(task.request).parts
        clips = cast[parts[-1].of] if parts else (query,)
        if all(segment.is_target for segment in sentence.segments):  # no condition: its likelihood is all there is
            (only,) = sentence.segments
            targets = self._targets(task, query, only.content)
            return [Item(query.id, query, query.tokens, sentence, only.role, only.content, targets)]
        answers = len(clips) if task.has_several_answers else 1
        request = request_of(sentence, answers)
        asked = request.sentence.segments[-(max(2, len(parts)) - 1) :]  # prompt and examples stand before it
        question = " ".join(segment.content for segment in asked if segment.is_text)
        heard = [part.of for part in parts if part.content == "audio" and not part.is_target]
        given = cast[heard[-1]][0] if heard and parts[-1].content == "audio" else None
        items = []
        for i, clip in enumerate(clips[-answers:]):
            right = request.reference if answers == 1 else clip.tokens
            targets = self._targets(task, clip, right, question, options)
            name = query.id if answers == 1 else f"{query.id}:{i + 1}"
            items.append(Item(name, clip, clip.tokens, request.sentence, request.role, right, targets, given, i))
        return items

    def _sentence(
        self, task: EvalTask, shots: int, query: StoredClip, position: int
    ) -> tuple[AuditorySentence, tuple[str, ...], Mapping[str, tuple[StoredClip, ...]]]:
        """The request with its right answer, the values that a classification allows, () elsewhere, and the clips that
        the sentence is about: path of relations -> clips, "" the query."""
        rng = KeyedRng("evaluation", self.seed, task.task, query.id)
        alone = {"": (query,)}
        if task.classification:
            classes = task.classification
            names: Names = "held_out" if classes.arbitrary_names else "own"
            made = self._episodes_from(classes.examples_from).of_label(
                classes.label, query, classes.ways, shots, rng, classes.examples_as, names
            )
            return *made, alone
        request = find_task(task.request)
        if not request.paths:
            return self._episodes_from("train").from_task(request, query, shots, rng), (), alone
        catalogue = self._catalogue(task.data.split)
        cast = catalogue.stored_cast(cast_of(request, catalogue, position, self.bank, rng))
        return self._episodes_from("train").from_task(request, query, shots, rng, cast=cast), (), cast.clips

    def _catalogue(self, split: str) -> Catalogue:
        if split not in self._catalogues:
            self._catalogues[split] = Catalogue(self.store, split)
        return self._catalogues[split]

    def _episodes_from(self, split: str) -> Episodes:
        if split not in self._episodes:
            self._episodes[split] = Episodes(self._catalogue(split), self.bank)
        return self._episodes[split]

    def _targets(
        self, task: EvalTask, clip: Clip, answer: str | AudioTokens | None = None, question: str = "",
        options: Sequence[str] = (),
    ) -> dict[str, Target]:  # fmt: skip
        return {score.name: self._target(score, clip, answer, question, options) for score in task.scores}

    def _target(
        self, score: Score, clip: Clip, answer: str | AudioTokens | None, question: str, options: Sequence[str]
    ) -> Target:
        """What a score compares with.

        Args:
            score: The score.
            clip: The clip of the query.
            answer: The right answer; None for a reconstruction.
            question: Text of the query itself, without prompt and examples: it may name the possible answers.
            options: Values that a classification allows.
        """
        if score.label and not score.choices and not options:
            reference: str | None = clip.labels[score.label]
        else:
            reference = normalise_words(answer) if isinstance(answer, str) else clip.text
        if METRICS[score.metric].takes != "label" and not score.choices:
            return Target(reference)
        values = score.choices or options or self.bank.label_values.get(score.label, ())
        phrases = {value: tuple(map(normalise_words, (value, *score.phrases.get(value, ())))) for value in values}
        if score.choices:
            return Target(label_in_text(reference, phrases), phrases, len(options) or len(phrases))
        named = labels_in_text(question, phrases) if isinstance(answer, str) and not options else set()
        return Target(reference, phrases, len(options) or (len(named) if len(named) > 1 else len(phrases)))


def with_recordings(task: EvalTask, items: Sequence[Item]) -> tuple[list[Item], list[dict[str, str]]]:
    """The items that can be evaluated, and those whose recording cannot be read, with the reason.

    Where the recording itself is compared, an item without it is left out; where it is the ceiling, the item stays.

    Raises:
        UserError: No item can be evaluated.
    """
    scorers = {score.scorer for score in task.scores}
    if not task.is_reconstruction and not scorers & {"recogniser", "signal_classifier", "waveform", *JUDGES}:
        return list(items), []  # no recording is needed
    missing = [{"id": item.id, "why": item.unreadable} for item in items if item.unreadable]
    if task.is_reconstruction or scorers.intersection(OF_RECORDING):
        without = {item.sentence.name for item in items if item.unreadable}  # all answers to one request, or none
        items = [item for item in items if item.sentence.name not in without]
    if not items:
        raise UserError(
            f"none of the {len(missing)} recordings of the task '{task.task}' can be read ({missing[0]['why']}); say "
            "where they are with --corpus, or leave the task out"
        )
    return list(items), missing


def _none_fit(task: EvalTask, selected: Sequence[int], described: str, what: str) -> NoReturn:
    raise UserError(
        f"the task '{task.task}' finds no clip that can {what} among the {len(selected)} of {described}: they lack "
        "texts, captions or labels that it needs; evaluate on a store that has them, or leave the task out"
    )


def _is_selected(data: Data, clip: Clip) -> bool:
    return (
        data.kind in ("any", clip.kind)
        and data.split in ("any", clip.split)
        and clip.source.startswith(data.source)
        and all(clip.labels.get(label) == value for label, value in data.labels.items())
    )


def _labels_of(task: EvalTask) -> list[str]:
    """Labels that a clip must have: those that items are spread over, scored by or classified by."""
    classes = task.classification.label if task.classification else ""
    labels = [task.data.spread, *(score.label for score in task.scores), classes]
    return [label for label in dict.fromkeys(labels) if label]


def _dealt(positions: Sequence[int], values: Sequence[str]) -> list[int]:
    """Positions in such an order that every beginning holds each value as evenly as there are clips of it."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for index, (position, value) in enumerate(zip(positions, values, strict=True)):
        order.append((turns[value], index, position))
        turns[value] += 1
    return [position for *_, position in sorted(order)]
