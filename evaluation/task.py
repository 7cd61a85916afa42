"""Evaluation tasks and suites: short YAML files with a version. A new task is a new file, not new code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from codec.errors import UserError
from codec.reading import read_yaml
from codec.strict import parse
from evaluation.metrics import METRICS

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

    examples_as: "audio" gives the examples whole, "descriptive" by their 5 Hz tokens alone: a third of the rows
    """

    label: str
    ways: int
    examples_as: Literal["audio", "descriptive"] = "audio"

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise ValueError("an episode needs at least 2 ways")


@dataclass(frozen=True)
class Generation:
    """How the model answers (lm.sampling.GenerationSettings). top_k 1 is greedy; 17.5 rows are a second of audio."""

    max_rows: int
    temperature: float = 0.9
    top_k: int = 1
    guidance: float = 1.0
    structural_temperature: float | None = None
    structural_guidance: float | None = None


@dataclass(frozen=True)
class Score:
    """One number of a task: who reads the answer, and how the reading is compared.

    judge: "text" the answer's words as they stand; "named" the one label value that the text names (none or several:
        unparsed); "likeliest" the value that the model finds likeliest as its answer; "recogniser" the words that an
        independent recogniser hears; "signal" the label value that signal measurements point to; "waveform" the audio
        itself; "likelihood" how likely the right text is
    label: the label that is named or heard; its values in the data are the choices, `choices` where these are given
    phrases: other ways to name a value; grammar: what the recogniser expects (evaluation/recogniser.py)
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
        if self.metric not in METRICS:
            near = get_close_matches(self.metric, METRICS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known metrics: {', '.join(METRICS)}"
            raise ValueError(f"there is no metric '{self.metric}'; {hint}")
        allowed = _DELIVERS[METRICS[self.metric].takes]
        if self.judge not in allowed:
            raise ValueError(f"the metric '{self.metric}' goes with the judge {' or '.join(allowed)}, not {self.judge}")
        if self.judge == "signal" and not self.label:
            raise ValueError("the judge 'signal' needs the key 'label'")


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    version: raised with every change that may change a score; it is part of every cached output's key
    request: a task of `auditory_sentences/tasks.py`, "audio_qa:instrument" for instance, "classification" with
        `episode`, or "reconstruction": what the codec makes of a recording
    shots: the numbers of solved examples that the task is meant for; `--shots` chooses among them
    """

    task: str
    version: int
    title: str
    about: str
    request: str
    data: Data
    scores: tuple[Score, ...]
    generation: Generation = Generation(max_rows=64)
    shots: tuple[int, ...] = (0,)
    episode: Episode | None = None

    def __post_init__(self) -> None:
        if not self.scores:
            raise ValueError("a task needs at least one score")
        if (self.request == "classification") != (self.episode is not None):
            raise ValueError("'episode' goes with the request 'classification', and with no other")
        if any(shots < 0 for shots in self.shots) or not self.shots:
            raise ValueError("'shots' is a list of numbers from 0")

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


def load_task(name_or_path: str | Path) -> Task:
    """A task by its name in evaluation/tasks, or from any YAML file. Raises UserError naming file, key and remedy."""
    path = _locate(name_or_path, TASKS_FOLDER, "task")
    return parse(Task, read_yaml(path), str(path))


def load_suite(name_or_path: str | Path) -> Suite:
    """A suite by its name in evaluation/suites, or from any YAML file."""
    path = _locate(name_or_path, SUITES_FOLDER, "suite")
    return parse(Suite, read_yaml(path), str(path))


def _locate(name_or_path: str | Path, folder: Path, what: str) -> Path:
    if str(name_or_path).endswith((".yaml", ".yml")):
        return Path(name_or_path)
    path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        near = get_close_matches(str(name_or_path), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}, or the path of a YAML file"
        raise UserError(f"there is no {what} '{name_or_path}'; {hint}")
    return path
