"""Evaluation tasks and suites: short YAML files with a version. A new task is a new file, not new code."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from auditory_sentences.builders.examples import has_several_answers
from auditory_sentences.builders.tasks import find_task, reading_tasks
from auditory_sentences.sentence import TextRole
from codec.io.aliases import first_names
from codec.io.errors import UserError
from codec.io.numbers import Count, Name, Range
from codec.io.reading import read_yaml
from codec.io.strict import nearest, parse
from codec.io.terminal import shown
from evaluation.datasets.task_dataset import TaskDataset
from evaluation.metrics.registry import METRICS
from evaluation.token_measures.registry import TOKEN_MEASURES
from lm.generation.settings import GenerationSettings
from lm.words import normalise_words

TASKS_FOLDER = Path(__file__).with_name("tasks")
SUITES_FOLDER = Path(__file__).with_name("suites")

Scorer = Literal[
    "text", "label_in_text", "max_likelihood", "recogniser", "signal_classifier", "waveform", "likelihood",
    "pitch", "speaker", "signal_features", "tagger", "dnsmos", "distillmos", "edit", "key",
    "tempo", "clap", "clap_caption",
]  # fmt: skip
# What each metric compares, and the scorers that deliver it.
_DELIVERS: Mapping[str, tuple[Scorer, ...]] = {
    "words": ("text", "recogniser"),
    "label": ("label_in_text", "max_likelihood", "signal_classifier"),
    "audio": ("waveform",),
    "likelihood": ("likelihood",),
    "pitch": ("pitch",),
    "embedding": ("speaker", "signal_features", "clap"),
    "description": ("clap_caption",),
    "tags": ("tagger",),
    "rating": ("dnsmos", "distillmos"),
    "manner": ("edit",),
    "key": ("key",),
    "tempo": ("tempo",),
}
# These compare with what the original recording is, or is judged to be.
OF_RECORDING = ("waveform", "pitch", "speaker", "signal_features", "tagger", "clap")
# Judges that make numbers of a waveform (evaluation/judges/waveform_judges.py).
JUDGES = (
    "pitch", "speaker", "signal_features", "tagger", "dnsmos", "distillmos", "edit", "key", "tempo", "clap",
    "clap_caption",
)  # fmt: skip
_OF_TEXT = ("text", "label_in_text", "max_likelihood", "likelihood")  # these read text answers, the others audio
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")  # such a name leads nowhere, in a path or in a link

GREEDY = GenerationSettings(max_rows=64, top_k=1)

Shots = Annotated[int, Range(0, 1000)]
Ways = Annotated[int, Range(2, 64)]


@dataclass(frozen=True)
class Data:
    """Which clips a task is about."""

    # kind of the clips; any: whichever, which only tasks of codecs can be about
    kind: Literal["speech", "sound", "music", "mixture", "any"]
    # split that they belong to; any: whichever
    split: Literal["train", "dev", "test", "any"] = "test"
    # label values that a clip must have
    labels: Mapping[str, str] = field(default_factory=dict)
    # how a clip's source must begin; empty: any source
    source: str = ""
    # label over whose values the items are spread evenly; empty: clips in a fixed random order
    spread: str = ""


@dataclass(frozen=True)
class Classification:
    """A few-shot classification: solved examples of each of several values of a label, then the query."""

    # label whose values are the classes; speaker: the voices are
    label: str
    # number of classes in one request
    ways: Ways
    # tokens of the examples: audio (all streams), or one stream's name: descriptive takes a third of the rows
    examples_as: Name = "audio"
    # whether words that no training episode uses as names stand for the classes: examples alone say which for which
    arbitrary_names: bool = False
    # split of the examples: the task's own for classes that are in no other, such as held-out voices
    examples_from: Literal["train", "dev", "test"] = "train"

    def __post_init__(self) -> None:
        _require_words("label", self.label)


@dataclass(frozen=True)
class Published:
    """A number that a paper gives for a score, shown beside it; what it was measured on is never exactly the same."""

    # as it is printed, in percent where the score is
    value: float
    # paper and table
    source: str
    # whose it is
    of: str = "UniAudio 2.0, 3B"

    def __post_init__(self) -> None:
        _require_words("source", self.source)

    def entry(self, percent: bool) -> dict[str, Any]:
        """As it stands in results.json: a share where the score is shown in percent."""
        return {"value": self.value / 100 if percent else self.value, "of": self.of, "source": self.source}


@dataclass(frozen=True)
class TextTask:
    """A task, or a group of tasks, of lm-evaluation-harness (evaluation/text)."""

    # its name there
    task: Name
    # solved examples; null: as many as the task says
    shots: Shots | None = None
    # heading in the report; empty: the name
    title: str = ""
    # what it tests, for readers of the report
    about: str = ""
    # name of a score there, such as acc -> the published number
    published: Mapping[str, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One number of a task: how a prediction is extracted from an answer, and the metric that compares it.

    The scorers: "text" takes the answer as it stands; "label_in_text" the one label value that the text names (none or
    several: unparsed); "max_likelihood" the value that is most likely as the model's answer; "recogniser" the words
    that an independent recogniser transcribes; "signal_classifier" the value that signal measurements point to;
    "waveform" the audio itself; "likelihood" how likely the right text is. Judges that give numbers: "pitch" the F0 of
    each frame, "speaker" an embedding of the voice, "signal_features" one of any sound, "tagger" the share of each
    class of sound, "dnsmos" and "distillmos" a mean opinion score, "edit" length, pitch and level of speech, beside
    those of the recording that was given, "key" and "tempo" those of music, beside the value of a label. Scores of the
    request tokens have a measure instead of metric and scorer.
    """

    # name of the score, unique in the task
    name: str
    # metric of evaluation/metrics/registry.py
    metric: str = ""
    # how a prediction is extracted from the answer
    scorer: Scorer | None = None
    # of tokens: measure of evaluation/token_measures/registry.py, which takes the place of metric and scorer
    measure: str = ""
    # of tokens: name of the stream that is measured; empty: each stream of the tokenizer
    stream: str = ""
    # of the measure probe: what is read, a label's name, words or speaker
    of: str = ""
    # label that is compared; its values in the data are the choices
    label: str = ""
    # the choices, where they are not the values of a label
    choices: tuple[str, ...] = ()
    # further phrases that name a value
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    # what the recogniser expects (evaluation/judges/recogniser.py)
    grammar: Literal["digit", "digits", "corpus", "open"] = "digits"
    # sentence for readers of the report
    about: str = ""
    # what a paper reports for it
    published: Published | None = None

    def __post_init__(self) -> None:
        _require_words("name", self.name)
        if self.measure:
            self._check_measure()
            return
        if self.stream or self.of:
            raise ValueError("the keys 'stream' and 'of' go with the key 'measure'")
        if self.metric not in METRICS:
            hint = nearest(self.metric, METRICS) or f"; known metrics: {', '.join(METRICS)}"
            raise ValueError(f"there is no metric {shown(self.metric)}{hint}")
        takes = METRICS[self.metric].takes
        if self.scorer not in _DELIVERS[takes]:
            allowed = " or ".join(_DELIVERS[takes])
            raise ValueError(f"the metric '{self.metric}' goes with the scorer {allowed}, not {self.scorer}")
        of_signal = self.scorer == "signal_classifier"
        if takes == "label" and not self.label and (of_signal or not self.choices):
            raise ValueError(f"the scorer '{self.scorer}' needs the key 'label'{'' if of_signal else ', or choices'}")
        if self.scorer in ("key", "tempo") and not self.label:
            raise ValueError(f"the scorer '{self.scorer}' needs the key 'label', whose value is right")
        phrases = [normalise_words(choice) for choice in self.choices]
        if "" in phrases or len(set(phrases)) < len(phrases) or len(phrases) == 1:
            raise ValueError("'choices' must be two or more phrases that differ by more than capitals and full stops")

    def _check_measure(self) -> None:
        if self.measure not in TOKEN_MEASURES:
            hint = nearest(self.measure, TOKEN_MEASURES) or f"; known measures: {', '.join(TOKEN_MEASURES)}"
            raise ValueError(f"there is no measure {shown(self.measure)}{hint}")
        if self.metric or self.scorer or self.label or self.choices or self.phrases:
            raise ValueError("a score with a 'measure' has no metric, scorer, label, choices or phrases")
        if TOKEN_MEASURES[self.measure].asks != bool(self.of):
            raise ValueError("the key 'of' says what the measure 'probe' reads: it goes with that measure alone")


@dataclass(frozen=True)
class EvalTask:
    """One evaluation task, as its YAML file describes it."""

    # name: letters, digits, _ - .
    task: str
    # to be raised with every change that may change a score; part of the key of every cached output
    version: Count
    # heading in the report
    title: str
    # what the task tests, for readers of the report
    about: str
    # a task of auditory_sentences/builders/tasks.py such as audio_qa:instrument, or classification,
    # reconstruction, tokens
    request: str
    # which clips the task is about
    data: Data
    # what is measured
    scores: tuple[Score, ...]
    # how the model generates; a key that is left out is that of GREEDY
    generation: GenerationSettings = GREEDY
    # numbers of solved examples that the task is meant for; --shots chooses among them
    shots: tuple[Shots, ...] = (0,)
    # the classes, for the request classification
    classification: Classification | None = None
    # the data set that its clips are of, unless a token store is given; none: those of the store or corpus
    dataset: TaskDataset | None = None
    # of the request tokens: training clips that a measure is fitted to, at most; of dev clips a quarter of that
    training: Count = 600
    # a label of its clips, such as content: scores of a model's answers are told for each of its values too; "": none
    apart: str = ""

    def __post_init__(self) -> None:
        _require_plain("task", self.task)
        if not self.scores:
            raise ValueError("a task needs at least one score")
        _require_once("scores", [score.name for score in self.scores], "two of them have the name")
        if (self.request == "classification") != (self.classification is not None):
            raise ValueError("the key 'classification' goes with the request 'classification', and with no other")
        if not self.shots:
            raise ValueError("'shots' is a list of numbers from 0")
        _require_once("shots", self.shots, "it lists twice")
        if self.classification and any(s.label not in ("", self.classification.label) for s in self.scores):
            raise ValueError(f"the scores must have the label of the classification, '{self.classification.label}'")
        if self.dataset and self.data.source != self.dataset.name:
            raise ValueError(f"'data' must have 'source: {self.dataset.name}', the name of the task's data set")
        self._check_request()

    def _check_request(self) -> None:
        """That the request is known, suits the clips, and is answered by what the scorers read."""
        if any(bool(score.measure) != self.is_of_tokens for score in self.scores):
            raise ValueError("the request 'tokens' goes with scores that have a 'measure', and with no others")
        if self.data.kind == "any" and not self.is_of_codec:
            raise ValueError(f"the request '{self.request}' needs one kind of clips, not any")
        if self.apart and self.is_of_codec:
            raise ValueError("'apart' is for requests that a model answers")
        if self.is_of_tokens:
            if any(self.shots):
                raise ValueError("the request 'tokens' has no examples: its 'shots' are [0]")
            return
        scorers = {score.scorer for score in self.scores}
        of_text, examples = self.classification is not None, True
        if not self.classification and not self.is_reconstruction:
            request = find_task(self.request)
            if self.data.kind not in request.kinds:
                kinds = " or ".join(sorted(request.kinds))
                raise ValueError(f"the request '{self.request}' is for clips of {kinds}, not of {self.data.kind}")
            role = request.parts[-1].role
            of_text, examples = role in get_args(TextRole), not all(part.is_target for part in request.parts)
            if not (of_text or role == "audio") or not (examples or scorers == {"likelihood"}):
                raise ValueError(f"the request '{self.request}' cannot be answered alone; choose another one")
        if ("edit" in scorers) > (self.request == "speech_editing"):
            raise ValueError("the scorer 'edit' goes with the request 'speech_editing'")
        unfit = sorted(scorer for scorer in scorers if (scorer in _OF_TEXT) != of_text)
        if unfit:
            raise ValueError(
                f"the request '{self.request}' is answered with {'text' if of_text else 'audio'}, which the scorer "
                f"'{unfit[0]}' does not read"
            )
        if self.is_likelihood and len(scorers) > 1:
            raise ValueError("the scorer 'likelihood' needs no answer: put it into a task of its own")
        if any(self.shots) and (self.is_reconstruction or not examples):
            raise ValueError(f"the request '{self.request}' has no examples: its 'shots' are [0]")

    def with_candidates(self, count: int) -> EvalTask:
        """The task with so many sounds made for each request, where a request is told in words; with 1 as it is."""
        if count == 1 or self.classification or self.is_of_codec or not reading_tasks(find_task(self.request)):
            return self
        return replace(self, generation=replace(self.generation, candidates=count))

    @property
    def is_reconstruction(self) -> bool:
        """Whether the codec is evaluated, not the model."""
        return self.request == "reconstruction"

    @property
    def is_of_tokens(self) -> bool:
        """Whether the tokens are measured, without the decoder."""
        return self.request == "tokens"

    @property
    def is_of_codec(self) -> bool:
        """Whether the codec is evaluated, not the model: its reconstructions, or its tokens."""
        return self.is_reconstruction or self.is_of_tokens

    @property
    def has_several_answers(self) -> bool:
        """Whether a request is answered with all parts of a mixture, one after the other, each of which is an item."""
        return not (self.classification or self.is_of_codec) and has_several_answers(find_task(self.request))

    @property
    def is_likelihood(self) -> bool:
        """Whether the right text is scored, and nothing is generated."""
        return any(score.scorer == "likelihood" for score in self.scores)

    @property
    def fingerprint(self) -> str:
        """Hash of what is measured, under the keys' first names: equal where two runs evaluated the same."""
        measured = replace(self, apart="", scores=tuple(replace(score, published=None) for score in self.scores))
        return hashlib.sha256(json.dumps(first_names(measured), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Suite:
    """A list of tasks to run together."""

    # name: letters, digits, _ - .
    suite: str
    # heading in the report
    title: str
    # what the suite tests
    about: str
    # names in evaluation/tasks, or YAML files relative to the suite's
    tasks: tuple[str, ...] = ()
    # tasks of lm-evaluation-harness
    text_tasks: tuple[TextTask, ...] = ()

    def __post_init__(self) -> None:
        _require_plain("suite", self.suite)
        if not self.tasks and not self.text_tasks:
            raise ValueError("'tasks' must list at least one task, or 'text_tasks' one of lm-eval")
        _require_once("text_tasks", [task.task for task in self.text_tasks], "it lists twice")


def load_task(name_or_path: str | Path) -> EvalTask:
    """A task by its name in evaluation/tasks, or from any YAML file.

    Raises:
        UserError: The file is not there, or is no task; names the file, the key and the remedy.
    """
    return _read(EvalTask, _locate(name_or_path, TASKS_FOLDER, "task"))


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name in evaluation/suites, or from any YAML file.

    Raises:
        UserError: As `load_task`.
    """
    return _read(Suite, _locate(name_or_path, SUITES_FOLDER, "suite"))


def load_suites(names_or_paths: Sequence[str | Path]) -> tuple[list[Suite], list[EvalTask]]:
    """Suites and the tasks that they list, each once, however many suites list it.

    Args:
        names_or_paths: Names in evaluation/suites, or YAML files. Paths of tasks are relative to their suite's file.

    Raises:
        UserError: A suite lists a task twice, or two files give one name: results are known by their names.
    """
    suites: dict[str, tuple[str, Suite]] = {}  # name -> (file, its contents)
    tasks: dict[str, tuple[str, EvalTask]] = {}
    for name_or_path in names_or_paths:
        path = _locate(name_or_path, SUITES_FOLDER, "suite")
        suite = _read(Suite, path)
        _enter(suites, suite.suite, path, suite, "suite")
        listed = set()
        for name in suite.tasks:
            file = _locate(name, TASKS_FOLDER, "task", path.parent)
            task = _read(EvalTask, file)
            _enter(tasks, task.task, file, task, "task")
            if task.task in listed:
                raise UserError(f"{path}: lists the task '{task.task}' twice; leave one out")
            listed.add(task.task)
    return [suite for _, suite in suites.values()], [task for _, task in tasks.values()]


def _enter(known: dict[str, tuple[str, Any]], name: str, path: Path, value: Any, what: str) -> None:
    file = os.path.realpath(path)
    if known.setdefault(name, (file, value))[0] != file:
        raise UserError(f"{path}: another file, {known[name][0]}, has a {what} '{name}' too; rename one of them")


def _locate(name_or_path: str | Path, folder: Path, what: str, base: Path = Path()) -> Path:
    """The file of a task or suite; a path is relative to `base`."""
    if str(name_or_path).lower().endswith((".yaml", ".yml")):
        return base / name_or_path
    path = folder / f"{name_or_path}.yaml"
    if not _PLAIN.fullmatch(str(name_or_path)) or not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        hint = nearest(str(name_or_path), known) or f"; known: {', '.join(known)}, or the path of a YAML file"
        raise UserError(f"there is no {what} {shown(str(name_or_path))}{hint}")
    return path


def _read(kind: type, path: Path) -> Any:
    what, other = ("task", "suite") if kind is EvalTask else ("suite", "task")
    values = read_yaml(path, what, f"name one of evaluation/{what}s, or the path of a YAML file")
    if other in values and what not in values:
        raise UserError(f"{path}: is a {other}, where a {what} is expected; suites list tasks, and tasks alone")
    if isinstance(values.get("generation"), dict):
        values = values | {"generation": {"max_rows": GREEDY.max_rows, "top_k": GREEDY.top_k} | values["generation"]}
    return parse(kind, values, str(path))


def _require_plain(key: str, name: str) -> None:
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"'{key}' must be a plain name (letters, digits, _ - .), not {shown(name)}")


def _require_words(key: str, text: str) -> None:
    if not text.strip() or len(text) > 200:
        raise ValueError(f"'{key}' must be a few words, not {shown(text)}")


def _require_once(key: str, values: Sequence[Any], problem: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"'{key}': {problem} {shown(twice)}; each must be there once")
