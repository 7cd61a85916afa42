"""Scoring: predictions are extracted from answers and compared with what is right, beside chance and the ceilings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache as memoised
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditory_sentences.corpora.read import Clip
from auditory_sentences.rng import stable_hash
from auditory_sentences.starter.related import edit_of
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from evaluation.items import Item
from evaluation.judges.pool import MAX_EXAMPLES, Judges, SignalClassifier
from evaluation.judges.recogniser import RECOGNISER_VERSION, Grammar, grammar, knows_any
from evaluation.judges.waveform_judges import waveform_judge
from evaluation.metrics.distribution import FrechetDistance
from evaluation.metrics.estimate import Estimate
from evaluation.metrics.metric import Each
from evaluation.metrics.packages import Absent
from evaluation.metrics.registry import METRICS
from evaluation.phrases import label_in_text
from evaluation.runner import Answer, Runner
from evaluation.task import JUDGES, OF_RECORDING, EvalTask, Score

if TYPE_CHECKING:
    from evaluation.judges.whisper import Whisper

OF_AUDIO = ("recogniser", "signal_classifier", "waveform", *JUDGES)  # scorers that read waveforms


@dataclass(frozen=True)
class Prediction:
    """One score of one set of answers."""

    # the metric over all items
    estimate: Estimate
    # what was extracted from each answer; None where nothing could be
    predictions: list[Any] = field(repr=False)
    # what would have been right
    references: list[Any] = field(repr=False)
    # number of answers that nothing could be extracted from
    unparsed: int = 0
    # number of references without words, where words are compared
    empty_references: int = 0
    # (amount, weight) of each answer, whose sums' ratio is the metric; None for one that nothing is measured of. Empty
    # for a distance of distributions between originals
    measured: list[tuple[float, float] | None] = field(default_factory=list, repr=False)


@dataclass(frozen=True)
class ScoreRow:
    """One score of a task with all that stands beside it."""

    # the score
    score: Score
    # of the model's answers, or of the codec's for reconstructions
    model: Prediction
    # of the untrained model's answers to the first items; None where it was not asked
    untrained: Prediction | None
    # of the original recordings that can be read: what could be reached; None for scores that read text, and for
    # waveforms of which the original is no right answer that a codec gives back
    original: Prediction | None
    # of the codec's reconstructions of the original tokens; None for scores that read text, and for reconstructions
    codec: Prediction | None
    # the score of a guess; None where there is none
    chance: float | None
    # of the recordings that the requests give, as they are; None where an answer is no other version of one
    given: Prediction | None = None
    # name of a sound in FLOORS -> of that in the place of the first answers; none for scores that read text
    floors: Mapping[str, Prediction] = field(default_factory=dict)
    # value of the label that the task names -> of the model's answers to the items that have it
    apart: Mapping[str, Prediction] = field(default_factory=dict)


def score_rows(
    task: EvalTask, items: Sequence[Item], answers: Sequence[Answer], untrained: Sequence[Answer] | None,
    runner: Runner, extractor: Extractor,
) -> tuple[list[ScoreRow], dict[str, str]]:  # fmt: skip
    """One row for each score of a task, and why others are left out: name of the score -> what it needs.

    Args:
        task: The task.
        items: Its items.
        answers: One for each item.
        untrained: The untrained model's answers to the first items; None for none.
        runner: The one that answered: its codec decodes the original tokens.
        extractor: Reads predictions out of answers.

    Raises:
        UserError: Something is missing that is no extra, or every score is left out.
    """
    rows, left_out = [], {}
    for score in task.scores:
        try:
            rows.append(_row(task, score, items, answers, untrained, runner, extractor))
        except Absent as error:
            left_out[score.name] = str(error)
        except ImportError as error:  # a package of a judge is there, and does not start
            left_out[score.name] = f"a package that it needs does not start ({error}); install it again"
    if not rows:
        raise UserError(f"every score of the task '{task.task}' is left out: {'; '.join(left_out.values())}")
    return rows, left_out


def _row(
    task: EvalTask, score: Score, items: Sequence[Item], answers: Sequence[Answer],
    untrained: Sequence[Answer] | None, runner: Runner, extractor: Extractor,
) -> ScoreRow:  # fmt: skip
    found = extractor.from_answers(task, score, items, answers)
    model = compare(task, score, items, found, extractor)
    fresh = codec = None
    if untrained:
        few = items[: len(untrained)]
        fresh = compare(task, score, few, extractor.from_answers(task, score, few, untrained), extractor)
    original = score_originals(task, score, items, extractor)
    if score.scorer in OF_AUDIO and not task.is_reconstruction:
        coded = runner.decoder.waveforms([item.tokens for item in items])
        codec = compare(task, score, items, extractor.from_waveforms(task, score, coded), extractor)
    unchanged = None
    if score.scorer in OF_AUDIO and all(item.given_recording is not None for item in items):
        given = extractor.from_waveforms(task, score, [item.given_recording for item in items])
        unchanged = compare(task, score, items, given, extractor)
    floors = score_floors(task, score, items, extractor)
    apart = score_apart(task, score, items, found, extractor)
    guess = chance(task, score, items, extractor)
    return ScoreRow(score, model, fresh, original, codec, guess, unchanged, floors, apart)


def score_apart(
    task: EvalTask, score: Score, items: Sequence[Item], predictions: Sequence[Any], extractor: Extractor
) -> dict[str, Prediction]:
    """The scores of the items with each value of the label that the task names, in the order of the values."""
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        if value := item.clip.labels.get(task.apart, ""):
            places.setdefault(value, []).append(i)
    return {
        value: compare(task, score, [items[i] for i in chosen], [predictions[i] for i in chosen], extractor)
        for value, chosen in sorted(places.items())
    }


def score_originals(task: EvalTask, score: Score, items: Sequence[Item], extractor: Extractor) -> Prediction | None:
    """The score of the original recordings that can be read.

    Where originals are compared with themselves, in reconstructions alone, that is what a codec without loss has; of a
    distance of distributions, that of two halves of them. None for scores that read text, and where no recording can
    be read.
    """
    if score.scorer not in OF_AUDIO or (score.scorer == "waveform" and not task.is_reconstruction):
        return None
    readable = [item for item in items if not item.unreadable]
    if not readable:
        return None
    found = extractor.from_waveforms(task, score, [item.recording for item in readable])
    metric = METRICS[score.metric]
    if isinstance(metric, FrechetDistance):
        return Prediction(metric.ceiling(found), found, found)
    made = compare(task, score, readable, found, extractor)
    same = score.scorer in OF_RECORDING  # with themselves: no sample of anything
    return replace(made, estimate=replace(made.estimate, stderr=None)) if same else made


def score_floors(task: EvalTask, score: Score, items: Sequence[Item], extractor: Extractor) -> dict[str, Prediction]:
    """The scores of sounds that answer nothing, as long as the recordings, for the first items: FLOORS by name."""
    readable = [item for item in items if not item.unreadable][:FLOOR_ITEMS]
    if score.scorer not in OF_AUDIO or not readable:
        return {}
    made = {}
    for name, sound in FLOORS.items():
        found = extractor.from_waveforms(task, score, [sound(item.recording) for item in readable])
        made[name] = compare(task, score, readable, found, extractor)
    return made


def compare(
    task: EvalTask, score: Score, items: Sequence[Item], predictions: list[Any], extractor: Extractor
) -> Prediction:
    """The score of predictions, one for each item (None: nothing could be extracted)."""
    metric, references = METRICS[score.metric], _references(task, score, items, extractor)
    unparsed = sum(prediction is None for prediction in predictions)
    estimate, measured = metric.scored(predictions, references, extractor.each(score))
    return Prediction(estimate, predictions, references, unparsed, metric.empty(references), measured)


def chance(task: EvalTask, score: Score, items: Sequence[Item], extractor: Extractor) -> float | None:
    """The score of a guess (`Metric.chance`), or of noise with the spectra of the recordings; None for none."""
    metric, references = METRICS[score.metric], _references(task, score, items, extractor)
    if metric.guess == "noise":
        readable = [i for i, item in enumerate(items) if not item.unreadable]
        noises = [noise_like(items[i].recording) for i in readable]
        judged = extractor.from_waveforms(task, score, noises)
        return metric.score(judged, [references[i] for i in readable]).value if readable else None
    choices = [item.targets[score.name].num_choices for item in items]
    return metric.chance(references, choices, extractor.each(score))


def noise_like(waveform: np.ndarray) -> np.ndarray:
    """Noise (n,) with the length, level and spectrum of a waveform: its phases are drawn anew, with a seed."""
    spectrum = np.fft.rfft(waveform)
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, len(spectrum))
    return np.fft.irfft(np.abs(spectrum) * np.exp(1j * phases), len(waveform)).astype(np.float32)


FLOORS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"silence": np.zeros_like, "noise": noise_like}
FLOOR_ITEMS = 8  # of a task, for each of them: such scores hardly vary


class Extractor:
    """Extracts predictions from answers, with the judges that the scores name."""

    def __init__(
        self, judges: Judges, clips: Sequence[Clip], recogniser: Whisper | None = None,
        tagger: str | Path | None = None, clap: str | None = None,
    ) -> None:  # fmt: skip
        """Nothing is fitted before it is needed.

        Args:
            judges: The processes that transcribe and measure.
            clips: What grammars are made of and classifiers are fitted to: those of the training split.
            recogniser: Transcribes in the place of pocketsphinx.
            tagger: Folder of the tagger, for the scores that need one.
            clap: Folder of the CLAP, for those.
        """
        self.versions: dict[str, str] = {}  # scorer -> name and version of the judge, once it has judged
        self._judges, self._recogniser, self._tagger, self._clap = judges, recogniser, tagger, clap
        self._clips = [clip for clip in clips if clip.split == "train"]
        self._classifier = memoised(self._fit_classifier)
        self._grammar = memoised(self._make_grammar)

    def from_answers(self, task: EvalTask, score: Score, items: Sequence[Item], answers: Sequence[Answer]) -> list[Any]:
        """What a score compares, for each answer; None where nothing can be extracted."""
        if score.scorer in OF_AUDIO:
            return self.from_waveforms(task, score, [answer.waveform for answer in answers])
        return [_from_text(score, item, answer) for item, answer in zip(items, answers, strict=True)]

    def from_waveforms(self, task: EvalTask, score: Score, waveforms: Sequence[np.ndarray | None]) -> list[Any]:
        """The same for waveforms (n,) at 24 kHz; None for None."""
        if score.scorer == "waveform":
            return list(waveforms)
        if score.scorer in JUDGES:
            judge = waveform_judge(score.scorer, self._tagger, self._clap)
            self.versions[score.scorer] = judge.version
            return self._judges.numbers(waveforms, judge)
        if score.scorer == "recogniser" and self._recogniser is not None:
            self.versions["recogniser"] = self._recogniser.version
            return self._judges.said(waveforms, self._recogniser.transcribe, self._recogniser.version)
        if score.scorer == "recogniser":
            self.versions["recogniser"] = RECOGNISER_VERSION
            labels = task.data.labels if task.data.kind == "speech" else {}
            return self._judges.transcripts(waveforms, self._grammar(score.grammar, frozenset(labels.items())))
        return self._classifier(task.data.kind, score.label).predict(waveforms)

    def of_captions(self, captions: Sequence[str]) -> list[list[float]]:
        """What the judge of sounds and captions makes of captions."""
        from evaluation.judges.clap import clap_of_text

        return [] if self._clap is None else [clap_of_text(caption, self._clap) for caption in captions]

    def each(self, score: Score) -> Each:
        """How a score's metric is applied to pairs: a slow one in the judges' processes, and cached."""
        return self._judges.pairs if METRICS[score.metric].slow else map

    def _make_grammar(self, name: str, labels: frozenset[tuple[str, str]]) -> Grammar:
        """Of training speech with a task's labels: where all is sentences, nobody expects digits. Else of all."""
        spoken = [clip for clip in self._clips if clip.kind == "speech" and clip.text]
        alike = [clip for clip in spoken if labels <= clip.labels.items()]
        texts = [clip.text for clip in alike or spoken]
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

    def _fit_classifier(self, kind: str, label: str) -> SignalClassifier:
        by_value: dict[str, list[Clip]] = {}
        for clip in self._clips:
            if clip.kind == kind and clip.labels.get(label):
                by_value.setdefault(clip.labels[label], []).append(clip)
        if len(by_value) < 2:
            raise UserError(
                f"the signal classifier of '{label}' needs training clips of {kind} with at least two values, but the "
                f"store has {sorted(by_value)}; use a store that has them or leave the score out"
            )
        chosen = [
            clip
            for clips in by_value.values()
            for clip in sorted(clips, key=lambda clip: stable_hash("judge", clip.id))[:MAX_EXAMPLES]
        ]
        try:
            waveforms = [load_audio(clip.path).numpy() for clip in chosen]
        except UserError as error:
            raise UserError(
                f"the signal classifier of '{label}' is fitted to training recordings, and one cannot be read "
                f"({error}); say where they are with --corpus, or leave the score out"
            ) from error
        return SignalClassifier(self._judges, waveforms, [clip.labels[label] for clip in chosen])


def _from_text(score: Score, item: Item, answer: Answer) -> Any:
    target = item.targets[score.name]
    if score.scorer == "text":
        return answer.text
    if score.scorer == "label_in_text":
        return label_in_text(answer.text, target.phrases)
    if score.scorer == "max_likelihood":
        return list(target.phrases)[int(np.argmax(answer.log_probabilities[score.name]))]
    return answer.likelihood


def _references(task: EvalTask, score: Score, items: Sequence[Item], extractor: Extractor) -> list[Any]:
    if score.scorer == "edit":  # beside what it was made of, not beside what was made of it
        given = extractor.from_waveforms(task, score, [item.given_recording for item in items])
        return [(_edit(item), numbers) for item, numbers in zip(items, given, strict=True)]
    if score.scorer == "clap_caption":
        return extractor.of_captions([item.clip.caption for item in items])
    if score.scorer in OF_RECORDING:
        return extractor.from_waveforms(task, score, [item.recording for item in items])
    return [item.targets[score.name].reference for item in items]


def _edit(item: Item) -> str:
    """Which edit an item asks for; "" where nobody knows, in a corpus with instructions of its own."""
    try:
        return edit_of(next(s.text for s in reversed(item.sentence.segments) if s.role == "text"))
    except ValueError:
        return ""
