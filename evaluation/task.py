"""Evaluation tasks and suites: short YAML files with a version. A new task is a new file, not new code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from auditory_sentences.builders.tasks import find_task
from auditory_sentences.sentence import TextRole
from codec.io.errors import UserError
from codec.io.numbers import Count, Guidance, Name, Range, Temperature
from codec.io.reading import read_yaml
from codec.io.strict import nearest, parse
from codec.io.terminal import shown
from evaluation.metrics.registry import METRICS
from lm.words import normalise_words

TASKS_FOLDER = Path(__file__).with_name("tasks")
SUITES_FOLDER = Path(__file__).with_name("suites")

Judge = Literal["text", "named", "likeliest", "recogniser", "signal", "waveform", "likelihood"]
# What each metric compares, and the judges that deliver it.
_DELIVERS = {
    "words": ("text", "recogniser"),
    "label": ("named", "likeliest", "signal"),
    "audio": ("waveform",),
    "likelihood": ("likelihood",),
}
_OF_TEXT = ("text", "named", "likeliest", "likelihood")  # judges of what is written; the others judge what is heard
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")  # such a name leads nowhere, in a path or in a link

Rows = Annotated[int, Range(1, 100_000)]  # 95 minutes of audio
Shots = Annotated[int, Range(0, 1000)]
Ways = Annotated[int, Range(2, 64)]


@dataclass(frozen=True)
class Data:
    """Which clips are asked about.

    kind: kind of clip; labels: values that a clip must have; source: what the clip's source begins with
    spread: a label over whose values the items are spread evenly; "" takes clips in a fixed random order
    """

    kind: Literal["speech", "sound", "music", "mixture"]
    split: Literal["train", "dev", "test", "any"] = "test"
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Episode:
    """A classification episode: solved examples of `ways` values of a label, then the query.

    examples_as: "audio" gives the examples whole, the name of a stream by that stream alone, as "descriptive" does in a
        third of the rows
    """

    label: str
    ways: Ways
    examples_as: Name = "audio"

    def __post_init__(self) -> None:
        _require_words("label", self.label)


@dataclass(frozen=True)
class Generation:
    """How the model answers (lm.sampling.GenerationSettings). top_k 1 is greedy; 17.5 rows are a second of audio."""

    max_rows: Rows
    temperature: Temperature = 0.9
    top_k: Count = 1
    guidance: Guidance = 1.0
    stream_temperature: Mapping[str, Temperature] = field(default_factory=dict)  # name of a stream -> its own
    stream_guidance: Mapping[str, Guidance] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One number of a task: who reads the answer, and how the reading is compared.

    judge: "text" the answer's words as they stand; "named" the one label value that the text names (none or several:
        unparsed); "likeliest" the value that the model finds likeliest as its answer; "recogniser" the words that an
        independent recogniser hears; "signal" the label value that signal measurements point to; "waveform" the audio
        itself; "likelihood" how likely the right text is
    label: the label that is named or heard; its values in the data are the choices, `choices` where these are given
    phrases: other ways to name a value; grammar: what the recogniser expects (evaluation/judges/recogniser.py)
    """

    name: str
    metric: str
    judge: Judge
    label: str = ""
    choices: tuple[str, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    grammar: Literal["digit", "digits", "corpus", "open"] = "digits"
    about: str = ""

    def __post_init__(self) -> None:
        _require_words("name", self.name)
        if self.metric not in METRICS:
            hint = nearest(self.metric, METRICS) or f"; known metrics: {', '.join(METRICS)}"
            raise ValueError(f"there is no metric {shown(self.metric)}{hint}")
        takes = METRICS[self.metric].takes
        if self.judge not in _DELIVERS[takes]:
            allowed = " or ".join(_DELIVERS[takes])
            raise ValueError(f"the metric '{self.metric}' goes with the judge {allowed}, not {self.judge}")
        if takes == "label" and not self.label and (self.judge == "signal" or not self.choices):
            more = "" if self.judge == "signal" else ", or 'choices'"
            raise ValueError(f"the judge '{self.judge}' needs the key 'label'{more}")
        spoken = [normalise_words(choice) for choice in self.choices]
        if "" in spoken or len(set(spoken)) < len(spoken) or len(spoken) == 1:
            raise ValueError("'choices' must be two or more phrases that differ by more than capitals and full stops")


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    version: raised with every change that may change a score; it is part of every cached output's key
    request: a task of `auditory_sentences/builders/tasks.py`, "audio_qa:instrument" for instance, "classification" with
        `episode`, or "reconstruction": what the codec makes of a recording
    shots: the numbers of solved examples that the task is meant for; `--shots` chooses among them
    """

    task: str
    version: Count
    title: str
    about: str
    request: str
    data: Data
    scores: tuple[Score, ...]
    generation: Generation = Generation(max_rows=64)
    shots: tuple[Shots, ...] = (0,)
    episode: Episode | None = None

    def __post_init__(self) -> None:
        _require_plain("task", self.task)
        if not self.scores:
            raise ValueError("a task needs at least one score")
        _require_once("scores", [score.name for score in self.scores], "two of them have the name")
        if (self.request == "classification") != (self.episode is not None):
            raise ValueError("'episode' goes with the request 'classification', and with no other")
        if not self.shots:
            raise ValueError("'shots' is a list of numbers from 0")
        _require_once("shots", self.shots, "it lists twice")
        if self.episode and any(score.label not in ("", self.episode.label) for score in self.scores):
            raise ValueError(f"the scores must ask for the episode's label, '{self.episode.label}'")
        self._check_request()

    def _check_request(self) -> None:
        """That the request is one of ours, suits the clips, and is answered by what the judges read."""
        judges = {score.judge for score in self.scores}
        of_text, examples = self.episode is not None, True
        if not self.episode and not self.is_reconstruction:
            asked = find_task(self.request)
            if self.data.kind not in asked.kinds:
                kinds = " or ".join(sorted(asked.kinds))
                raise ValueError(f"the request '{self.request}' is for clips of {kinds}, not of {self.data.kind}")
            role = asked.parts[-1].role
            of_text, examples = role in get_args(TextRole), not all(part.is_target for part in asked.parts)
            if not (of_text or role == "audio") or not (examples or judges == {"likelihood"}):
                raise ValueError(f"the request '{self.request}' cannot be answered alone; choose another one")
        if any((judge in _OF_TEXT) != of_text for judge in judges):
            raise ValueError(
                f"the request '{self.request}' is answered with {'text' if of_text else 'audio'}, which the judge "
                f"'{next(judge for judge in sorted(judges) if (judge in _OF_TEXT) != of_text)}' does not read"
            )
        if "likelihood" in judges and len(judges) > 1:
            raise ValueError("the judge 'likelihood' asks for no answer: put it into a task of its own")
        if any(self.shots) and (self.is_reconstruction or not examples):
            raise ValueError(f"the request '{self.request}' has no examples: its 'shots' are [0]")

    @property
    def is_reconstruction(self) -> bool:
        """Whether the codec is asked, not the model."""
        return self.request == "reconstruction"

    @property
    def fingerprint(self) -> str:
        """Hash of everything the file says: shows in results whether two runs asked the same."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Suite:
    """A list of tasks to run together."""

    suite: str
    title: str
    about: str
    tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_plain("suite", self.suite)
        if not self.tasks:
            raise ValueError("'tasks' must list at least one task")


def load_task(name_or_path: str | Path) -> Task:
    """A task by its name in evaluation/tasks, or from any YAML file. Raises UserError naming file, key and remedy."""
    return _read(Task, _locate(name_or_path, TASKS_FOLDER, "task"))


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name in evaluation/suites, or from any YAML file."""
    return _read(Suite, _locate(name_or_path, SUITES_FOLDER, "suite"))


def load_suites(names_or_paths: Sequence[str | Path]) -> tuple[list[Suite], list[Task]]:
    """Suites and the tasks that they list, each once, however many suites list it.

    Paths of tasks are relative to the suite's file. Raises UserError where a suite lists a task twice, and where two
    files give one name: results are known by their names.
    """
    suites: dict[str, tuple[str, Suite]] = {}  # name -> (file, what it says)
    tasks: dict[str, tuple[str, Task]] = {}
    for given in names_or_paths:
        path = _locate(given, SUITES_FOLDER, "suite")
        suite = _read(Suite, path)
        _enter(suites, suite.suite, path, suite, "suite")
        listed = set()
        for name in suite.tasks:
            file = _locate(name, TASKS_FOLDER, "task", path.parent)
            task = _read(Task, file)
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
    """The file of a task or suite. base: what a path is relative to"""
    if str(name_or_path).lower().endswith((".yaml", ".yml")):
        return base / name_or_path
    path = folder / f"{name_or_path}.yaml"
    if not _PLAIN.fullmatch(str(name_or_path)) or not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        hint = nearest(str(name_or_path), known) or f"; known: {', '.join(known)}, or the path of a YAML file"
        raise UserError(f"there is no {what} {shown(str(name_or_path))}{hint}")
    return path


def _read(kind: type, path: Path) -> Any:
    what, other = ("task", "suite") if kind is Task else ("suite", "task")
    values = read_yaml(path, what, f"name one of evaluation/{what}s, or the path of a YAML file")
    if other in values and what not in values:
        raise UserError(f"{path}: is a {other}, where a {what} is expected; suites list tasks, and tasks alone")
    return parse(kind, values, str(path))


def _require_plain(key: str, name: str) -> None:
    if not _PLAIN.fullmatch(name):
        raise ValueError(f"'{key}' must be a plain name (letters, digits, _ - .), not {shown(name)}")


def _require_words(key: str, text: str) -> None:
    if not text.strip() or len(text) > 200:
        raise ValueError(f"'{key}' must be a few words, not {shown(text)}")


def _require_once(key: str, values: Sequence[Any], said: str) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"'{key}': {said} {shown(twice)}; each must be there once")
