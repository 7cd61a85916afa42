"""Scoring: answers become predictions, predictions become scores, each beside chance and its ceilings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache as memoised
from typing import Any

import numpy as np

from auditory_sentences.corpora.read import Clip
from auditory_sentences.rng import stable_hash
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from evaluation.items import Item, Questions
from evaluation.judges.pool import MAX_EXAMPLES, Judges, SignalJudge, named
from evaluation.judges.recogniser import Grammar, grammar, knows_any
from evaluation.metrics.estimate import Estimate
from evaluation.metrics.registry import METRICS
from evaluation.runner import Answer, CachedDecoder, ModelRunner
from evaluation.task import Score, Task


@dataclass(frozen=True)
class Prediction:
    """One score of one set of answers.

    predictions: what was read or heard, per item, None where nothing could be; unparsed: how many of these
    references: what would have been right; empty_references: how many of these hold no word, where words are compared
    """

    estimate: Estimate
    predictions: list[Any] = field(repr=False)
    references: list[Any] = field(repr=False)
    unparsed: int = 0
    empty_references: int = 0


class Scorer:
    """Reads answers and compares them, with the judges that the scores name."""

    def __init__(self, questions: Questions, judges: Judges) -> None:
        self.questions, self.judges = questions, judges
        self.signal_judge = memoised(self._fit_signal_judge)
        self.grammar = memoised(self._make_grammar)

    def read_answers(
        self, task: Task, score: Score, items: Sequence[Item], answers: Sequence[Answer], speaker: CachedDecoder
    ) -> Prediction:
        """The score of a model's answers; `speaker` turns their tokens into waveforms."""
        if score.judge in ("text", "named"):
            predictions = [self._read_text(score, item, a.text) for item, a in zip(items, answers, strict=True)]
        else:
            predictions = self._read_audio(task, score, speaker.waveforms([a.tokens for a in answers]))
        return self._compare(score, items, predictions)

    def read_originals(self, task: Task, score: Score, items: Sequence[Item]) -> Prediction | None:
        """The score of the original recordings: what could be reached. Of those that can be read.

        None for scores that read text, for originals compared with themselves, and where no recording can be read.
        """
        readable = [item for item in items if not item.unreadable]
        if score.judge not in ("recogniser", "signal") or not readable:
            return None
        heard = self._read_audio(task, score, [item.recording for item in readable])
        return self._compare(score, readable, heard)

    def read_reconstructions(
        self, task: Task, score: Score, items: Sequence[Item], codec: CachedDecoder
    ) -> Prediction | None:
        """The score of what the codec makes of the originals' tokens. None for scores that read text."""
        if score.judge not in ("recogniser", "signal", "waveform"):
            return None
        return self._compare(score, items, self._read_audio(task, score, codec.waveforms([i.tokens for i in items])))

    def read_choices(self, task: Task, score: Score, items: Sequence[Item], who: ModelRunner) -> Prediction:
        """The score of the values that a model finds likeliest."""
        options = [tuple(self.questions.choices(score, item)) for item in items]
        scores = who.log_probabilities(task, items, options)
        predictions = [o[int(np.argmax(s))] for o, s in zip(options, scores, strict=True)]
        return self._compare(score, items, predictions)

    def likelihood(
        self, score: Score, items: Sequence[Item], negative_log_likelihood: Sequence[tuple[float, float]]
    ) -> Prediction:
        """The score of (nats, tokens) per item."""
        return self._compare(score, items, list(negative_log_likelihood))

    def chance(self, score: Score, items: Sequence[Item]) -> float | None:
        """What answering without listening scores (evaluation.metrics.Metric.chance)."""
        metric = METRICS[score.metric]
        counts = []
        if metric.takes == "label":
            counts = [self.questions.number_of_choices(score, item) for item in items]
        return metric.chance(self._references(score, items), counts)

    def _compare(self, score: Score, items: Sequence[Item], predictions: list[Any]) -> Prediction:
        references = self._references(score, items)
        metric = METRICS[score.metric]
        unparsed = sum(reading is None for reading in predictions)
        return Prediction(
            metric.score(predictions, references), predictions, references, unparsed, metric.empty(references)
        )

    def _references(self, score: Score, items: Sequence[Item]) -> list[Any]:
        if METRICS[score.metric].takes == "audio":
            return [item.recording for item in items]
        if score.choices:
            return [named(item.reference(score), self.questions.choices(score, item)) for item in items]
        return [item.reference(score) for item in items]

    def _read_text(self, score: Score, item: Item, text: str | None) -> str | None:
        if score.judge == "text":
            return text
        return named(text, self.questions.choices(score, item))

    def _read_audio(self, task: Task, score: Score, waveforms: list[np.ndarray | None]) -> list[Any]:
        if score.judge == "waveform":
            return waveforms
        if score.judge == "recogniser":
            return self.judges.words(waveforms, self.grammar(score.grammar))
        return self.signal_judge(task.data.kind, score.label).hear(waveforms)

    def _make_grammar(self, name: str) -> Grammar:
        texts = (c.text for c in self.questions.store.clips if c.split == "train" and c.kind == "speech" and c.text)
        try:
            made = grammar(name, texts)
        except ValueError as error:
            raise UserError(
                f"the recogniser's grammar '{name}' is made of the words of training clips, and the store has no "
                "speech with text in split 'train'; evaluate on one that has some, or take the grammar open"
            ) from error
        if not knows_any(made):
            raise UserError(
                f"the recogniser's grammar '{name}' holds none of the English words that the recogniser knows; leave "
                "such scores out for speech in other languages"
            )
        return made

    def _fit_signal_judge(self, kind: str, label: str) -> SignalJudge:
        by_value: dict[str, list[Clip]] = {}
        for clip in self.questions.store.clips:
            if clip.split == "train" and clip.kind == kind and clip.labels.get(label):
                by_value.setdefault(clip.labels[label], []).append(clip)
        chosen = [
            clip
            for clips in by_value.values()
            for clip in sorted(clips, key=lambda clip: stable_hash("judge", clip.id))[:MAX_EXAMPLES]
        ]
        if len(by_value) < 2:
            raise UserError(
                f"the signal judge of '{label}' needs training clips of {kind} with at least two values, found "
                f"{sorted(by_value)}; use a store that has them or leave the score out"
            )
        try:
            waveforms = [load_audio(clip.path).numpy() for clip in chosen]
        except UserError as error:
            raise UserError(
                f"the signal judge of '{label}' hears the training recordings first, and one cannot be read ({error}); "
                "say where they are with --corpus, or leave the score out"
            ) from error
        return SignalJudge(self.judges, waveforms, [clip.labels[label] for clip in chosen])
