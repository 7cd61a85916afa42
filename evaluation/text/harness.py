"""Tasks of lm-evaluation-harness, as entries of results.json: the model, and beside it the text model it grew from."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.io.terminal import shown
from codec.io.third_party import third_party_errors
from evaluation.metrics.estimate import Estimate, ratio
from evaluation.task import TextTask

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from evaluation.text.harness_model import HarnessModel

NOT_INSTALLED = "needs lm-evaluation-harness, which is not installed (pip install 'uniaudio[text]')"
_BOOTSTRAP = 1000  # resamples of the harness's own, for metrics that are no mean
# Metrics of the harness that are shares; it does not say of any what its largest value is.
_SHARES = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match", "em", "f1", "likelihood_diff")
# Metrics of whole texts, of which the harness gives no standard error: exp or bits of nats over words or bytes.
_OF_TEXTS = {"word_perplexity": np.exp, "byte_perplexity": np.exp, "bits_per_byte": lambda nats: nats / np.log(2)}


@dataclass
class TextTasks:
    """Which tasks of the harness an evaluation asks."""

    # names, with how many solved examples and what was published
    tasks: Sequence[TextTask]
    # YAML files of tasks; None: the harness's own
    folder: Path | None = None
    # the harness's index of tasks, made when first needed: it reads thousands of files
    _manager: TaskManager | None = field(default=None, repr=False)

    @classmethod
    def named(cls, suites: Sequence[TextTask], asked: Sequence[str | Path]) -> TextTasks:
        """The tasks of suites or, where some are asked for (--tasks), those: names, or one folder of YAML files.

        Raises:
            UserError: The folder holds no task, or there are names beside it.
        """
        folders = [Path(name) for name in asked if Path(name).is_dir()]
        if not folders:
            known = {task.task: task for task in suites}  # what a suite says of a task holds for the name alone, too
            listed = {str(name): known.get(str(name), TextTask(str(name))) for name in asked}
            return cls(list(listed.values()) or list(suites))
        if len(asked) > 1:
            raise UserError("--tasks takes names of tasks, or one folder of their YAML files, not both")
        (folder,) = folders
        found = sorted({name for file in sorted(folder.rglob("*.y*ml")) for name in _tasks_in(file)})
        if not found:
            raise UserError(f"{folder}: holds no YAML file with the key 'task'; give a folder of tasks of lm-eval")
        return cls([TextTask(name) for name in found], folder)

    def fingerprint(self, task: TextTask) -> str:
        """What makes two evaluations of a task the same: its name, the harness's version, and the folder's files."""
        parts: dict[str, Any] = {"task": task.task, "shots": task.shots, "lm_eval": lm_eval_version()}
        if self.folder is not None:
            files = sorted(
                path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
            )
            parts["files"] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def manager(self) -> TaskManager:
        """The harness's index of its own tasks, or of the folder's alone."""
        if self._manager is None:
            from lm_eval.tasks import TaskManager

            folder = self.folder
            with third_party_errors(folder or "lm-eval", "its tasks cannot be read", "correct the YAML files"):
                self._manager = TaskManager(include_path=folder and str(folder), include_defaults=folder is None)
        return self._manager

    def require_known(self) -> None:
        """Raise UserError where lm-eval is there, and knows no task of a name."""
        if lm_eval_version() is None:
            return
        known = self.manager.all_tasks
        for task in self.tasks:
            if task.task not in known:
                hint = nearest(task.task, known) or "; `lm-eval ls tasks` lists them"
                raise UserError(f"lm-eval has no task {shown(task.task)}{hint}, or give a folder of its YAML file")


def lm_eval_version() -> str | None:
    """The installed version of the harness; None where there is none."""
    return importlib.metadata.version("lm-eval") if importlib.util.find_spec("lm_eval") else None


def evaluate_text(
    tasks: TextTasks, task: TextTask, model: HarnessModel | None, beside: HarnessModel | None, limit: int | None,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate one task or group of tasks.

    Args:
        tasks: That it is of.
        task: Its name, number of examples and published numbers.
        model: The model; None where lm-eval is not installed.
        beside: The text model it grew from; None for no comparison.
        limit: Items of each task, its first ones; None for all.
        seed: Of the choice of examples.

    Returns:
        The entry in results.json, with samples under "samples". Where the data cannot be had, the entry gives the
        reason.
    """
    entry: dict[str, Any] = {
        "task": task.task, "version": 1, "fingerprint": tasks.fingerprint(task), "title": task.title or task.task,
        "about": task.about, "shots": task.shots or 0, "shots_asked": task.shots or 0, "generation": {}, "n": 0,
        "scores": [],
    }  # fmt: skip
    if model is None:
        return entry | {"skipped": f"'{task.task}' {NOT_INSTALLED}"}
    try:
        before = model.truncated, beside.truncated if beside else 0
        made = _run(tasks, task, model, limit, seed)
        other = _run(tasks, task, beside, limit, seed) if beside else None
    except UserError as error:
        return entry | {"skipped": str(error)}
    truncated = {"model": model.truncated - before[0]}
    if beside:
        truncated["text_model"] = beside.truncated - before[1]
    names = _leaves(made, task.task)
    counts = [made["n-samples"][name] for name in names]
    scores = _scores(made, task, names)
    if other is not None:
        theirs = {score["name"]: score for score in _scores(other, task, names)}
        for score in scores:
            score["text_model"] = {key: theirs[score["name"]][key] for key in ("value", "stderr", "n")}
    configs = [made["configs"][name] for name in names]
    kept = ("task", "dataset_path", "dataset_name", "test_split", "validation_split", "output_type", "num_fewshot")
    entry |= {
        "version": made["versions"].get(task.task) or 1, "n": sum(count["effective"] for count in counts),
        "shots": max(made["n-shot"].get(name) or 0 for name in names), "scores": scores,
        "harness": {
            "lm_eval": lm_eval_version(), "items": sum(count["original"] for count in counts), "truncated": truncated,
            "tasks": [{key: config.get(key) for key in kept} for config in configs],
        },
    }  # fmt: skip
    if len(names) > 1:
        entry["harness"]["results"] = {name: _plain(made["results"][name]) for name in names}
    return entry | {"samples": _samples(entry, made["samples"])}


def _run(tasks: TextTasks, task: TextTask, model: HarnessModel, limit: int | None, seed: int) -> Mapping[str, Any]:
    """What the harness finds, with all samples."""
    from lm_eval import simple_evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    what = "lm-eval cannot evaluate it"
    remedy = "check the network, or give a folder of tasks with data of your own (--tasks)"
    with third_party_errors(f"the task '{task.task}'", what, remedy):
        made = simple_evaluate(
            model=model, tasks=[task.task], num_fewshot=task.shots, limit=limit, bootstrap_iters=_BOOTSTRAP,
            task_manager=tasks.manager, log_samples=True, random_seed=seed, numpy_random_seed=seed,
            torch_random_seed=seed, fewshot_random_seed=seed,
        )  # fmt: skip
    return made


def _leaves(made: Mapping[str, Any], name: str) -> list[str]:
    """Names of the tasks that hold the items: of a group its members, of a task itself."""
    return list(made["samples"]) if name not in made["samples"] else [name]


def _scores(made: Mapping[str, Any], task: TextTask, names: Sequence[str]) -> list[dict[str, Any]]:
    """An entry for each metric: of the group where it has some, else of each member."""
    found = []
    groups = made.get("groups", {})
    whole = groups if task.task in groups else made["results"]
    for name in [task.task] if task.task in whole else names:
        values = whole[name]
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or isinstance(value, str):
                continue
            better = made["higher_is_better"].get(name, {}).get(metric)
            label = metric if filtered == "none" else f"{metric}, {filtered}"
            error = values.get(f"{metric}_stderr,{filtered}")
            of_name = names if name == task.task else [name]
            samples = [sample for leaf in of_name for sample in made["samples"][leaf] if sample["filter"] == filtered]
            estimate = Estimate(float(value), float(error) if isinstance(error, float | int) else None, len(samples))
            if metric in _OF_TEXTS:
                pairs = np.array([sample[metric] for sample in samples], dtype=float)
                estimate = ratio(-pairs[:, 0], pairs[:, 1], _OF_TEXTS[metric])
            else:
                estimate = _with_error(estimate, [sample.get(metric) for sample in samples])
            percent = metric in _SHARES
            published = task.published.get(label)
            found.append({
                "name": label if name == task.task else f"{name}: {label}", "metric": metric, "scorer": "lm-eval",
                "about": "", "unit": "%" if percent else "", "percent": percent,
                "direction": "lower" if better is False else "higher", **asdict(estimate),
                "unparsed": 0, "empty_references": 0, "chance": _chance(made, of_name, metric), "untrained": None,
                "original": None, "codec": None, "text_model": None,
                "published": published and published.entry(percent),
            })  # fmt: skip
    return found


def _with_error(estimate: Estimate, values: Sequence[Any]) -> Estimate:
    """The same with the standard error of all our scores, where it is the mean over items: not 0 if all are right."""
    if not values or not all(isinstance(value, float | int) for value in values):
        return estimate
    ours = ratio([float(value) for value in values], [1.0] * len(values))
    return ours if ours.value is not None and np.isclose(ours.value, estimate.value) else estimate


def _chance(made: Mapping[str, Any], names: Sequence[str], metric: str) -> float | None:
    """One over the number of choices, mean over items; None where nothing is chosen."""
    if metric not in ("acc", "acc_norm"):
        return None
    if any(made["configs"][name].get("output_type") != "multiple_choice" for name in names):
        return None
    shares = [1 / len(sample["arguments"]) for name in names for sample in made["samples"][name]]
    return float(np.mean(shares)) if shares else None


def _samples(entry: Mapping[str, Any], samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Each item as samples.jsonl has it: what was asked, what was answered or found likeliest, what would be right."""
    found = []
    for name, each in samples.items():
        for sample in each:
            arguments = [tuple(one.values()) if isinstance(one, Mapping) else one for one in _ordered(sample)]
            nats = [answer[0] for answer in sample["filtered_resps"] if isinstance(answer, list | tuple)]
            answer = None
            if nats and len(arguments) > 1:
                answer = arguments[int(np.argmax(nats))][1].strip()
            elif not nats and isinstance(sample["filtered_resps"][0], str):
                answer = sample["filtered_resps"][0]
            found.append({
                "task": entry["task"], "shots": entry["shots"], "id": f"{name}/{sample['doc_id']}", "path": "",
                "given": [str(arguments[0][0])], "expected": str(sample["target"]), "answer": answer,
                "reason": "scored", "predictions": {}, "filter": sample["filter"], "log_likelihoods": nats,
            })  # fmt: skip
    return found


def _ordered(sample: Mapping[str, Any]) -> Sequence[Any]:
    arguments = sample["arguments"]
    return list(arguments.values()) if isinstance(arguments, Mapping) else arguments


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if isinstance(value, float | int | str)}


def _tasks_in(path: Path) -> list[str]:
    """Names of the tasks or groups that a YAML file of the harness describes; its tags (!function) are not read."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no YAML file of a task ({str(error).splitlines()[0]}); correct it") from error
    name = values.get("task", values.get("group")) if isinstance(values, dict) else None
    return [name] if isinstance(name, str) else []
