"""A finished evaluation, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.io.errors import UserError
from codec.io.reading import read_json, read_json_lines
from evaluation.results_folder import CACHE, RESULTS, SAMPLES, identity_of_parts

Pair = tuple[float, float]
Key = tuple[str, int, str]  # task, number of shots, codec; "" where no codec is evaluated
_DAMAGED = (KeyError, TypeError, AttributeError, ValueError, IndexError)


@dataclass(frozen=True)
class Reading:
    """What one score found in the answer to one item."""

    # the words or the label that were read out of it; None for numbers, and where nothing could be
    read: str | None
    # what would be right; None for numbers
    reference: str | None
    # (amount, weight); None where nothing could be measured
    measured: Pair | None


@dataclass(frozen=True)
class Asked:
    """One item with its answer."""

    # of the item
    id: str
    # the original recording
    path: str
    # the request, its audio as roles
    given: tuple[str, ...]
    # the right answer in words; None where there is none
    expected: str | None
    # the answer in words; None for audio
    answer: str | None
    # the answer's sound, within the folder; None without one
    audio: str | None
    # why the answer ended; scored: nothing was generated
    reason: str
    # name of a score -> what it found
    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class Entry:
    """One task at one number of shots, of one codec."""

    # what it is known by
    key: Key
    # of the task
    title: str
    # hash of the task's definition
    fingerprint: str
    # why it was not evaluated; "" where it was
    skipped: str
    # name of a score -> its entry in results.json
    scores: Mapping[str, Mapping[str, Any]]
    # id -> item; empty for measures of tokens
    items: Mapping[str, Asked]


@dataclass(frozen=True)
class Run:
    """One finished evaluation."""

    # where it lies
    folder: Path
    # names of the suites
    suites: tuple[str, ...]
    # names of the codecs, where codecs are evaluated
    codecs: tuple[str, ...]
    # what was evaluated: model, codecs, judges, seed
    identity: Mapping[str, Any]
    # judge -> its name and version
    versions: Mapping[str, str]
    # all that was evaluated
    entries: Mapping[Key, Entry]

    @property
    def seed(self) -> int | None:
        """Of the evaluation: which clips are asked about, in which words."""
        return self.identity["seed"]


def read_run(folder: Path, items: bool = True) -> Run:
    """Read a finished evaluation.

    Args:
        folder: What --out of the evaluation was.
        items: Read its items too; without them every `Entry.items` is empty.

    Raises:
        UserError: There is none, it is not finished, it is damaged, or it was written before items kept what they
            measured.
    """
    path = folder / RESULTS
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the --out folder of a finished `uniaudio evaluate`")
    if not path.is_file():
        if (folder / CACHE).is_dir():
            raise UserError(
                f"{folder}: its evaluation is not finished; run the same `uniaudio evaluate` again, which goes on "
                "where it stopped"
            )
        raise UserError(f"{folder}: holds no {RESULTS}; give the --out folder of a finished `uniaudio evaluate`")
    results = read_json(path, "file of results")
    samples = _samples(folder) if items else None
    try:
        return _run(folder, results, samples)
    except _DAMAGED as error:
        raise UserError(f"{path}: not the results of an evaluation, or damaged; evaluate again with --force") from error


def _samples(folder: Path) -> dict[Key, dict[str, Asked]]:
    if not (folder / SAMPLES).is_file():
        raise UserError(f"{folder}: holds {RESULTS} but no {SAMPLES}, so no item can be compared; evaluate again")
    samples: dict[Key, dict[str, Asked]] = {}
    for where, values in read_json_lines(folder / SAMPLES, "file of samples"):
        try:
            key, asked = _key(values), _asked(values)
        except _DAMAGED as error:
            raise UserError(f"{where}: not the answer to an item, or damaged; evaluate again with --force") from error
        if not all(isinstance(p, dict) and "measured" in p for p in values["predictions"].values()):
            raise UserError(
                f"{folder}: was written by a version that kept no value of each item; run the same `uniaudio evaluate` "
                "again (outputs come from its cache)"
            )
        if asked.id in samples.setdefault(key, {}):
            raise UserError(f"{where}: a second answer to the item {asked.id}; evaluate again with --force")
        samples[key][asked.id] = asked
    return samples


def _run(folder: Path, results: Any, samples: Mapping[Key, Mapping[str, Asked]] | None) -> Run:
    entries = {}
    for task in results["tasks"]:
        key = _key(task)
        scores = {score["name"]: _checked(score) for score in task["scores"]}
        entry = Entry(key, str(task["title"]), str(task["fingerprint"]), task.get("skipped", ""), scores,
                      (samples or {}).get(key, {}))  # fmt: skip
        if samples is not None and not entry.skipped and all(score["scorer"] != "tokens" for score in scores.values()):
            if len(entry.items) != task["n"]:
                raise UserError(
                    f"{folder}: {SAMPLES} has {len(entry.items)} items of the task '{key[0]}', {RESULTS} {task['n']}; "
                    "an evaluation is being written there, or files were exchanged: wait, or evaluate again (--force)"
                )
        entries[key] = entry
    identity = {k: v for k, v in identity_of_parts(results).items() if k != "data"}
    identity["seed"] = results["settings"]["seed"]
    identity["candidates"] = results["settings"].get("candidates", 1)
    codecs = tuple(dict.fromkeys(key[2] for key in entries if key[2]))
    suites = tuple(str(suite["suite"]) for suite in results["suites"])
    return Run(folder, suites, codecs, identity, dict(results["versions"]), entries)


def _key(values: Mapping[str, Any]) -> Key:
    if type(values["shots"]) is not int:
        raise TypeError("no number of shots")
    return str(values["task"]), values["shots"], str(values.get("codec", ""))


def _checked(score: Mapping[str, Any]) -> Mapping[str, Any]:
    """An entry of a score with numbers where numbers have to be."""
    for name in ("value", "stderr", "chance"):
        if score[name] is not None and type(score[name]) not in (int, float):
            raise TypeError(f"{name} is no number")
    if score["direction"] not in ("higher", "lower") or type(score["percent"]) is not bool:
        raise ValueError("no direction")
    return {**score, "unit": str(score["unit"]), "metric": str(score["metric"]), "scorer": str(score["scorer"])}


def _asked(values: Mapping[str, Any]) -> Asked:
    readings = {
        str(name): Reading(_text(found["read"]), _text(found["reference"]), _pair(found.get("measured")))
        for name, found in values["predictions"].items()
    }
    return Asked(
        str(values["id"]), str(values["path"]), tuple(map(str, values["given"])), _text(values["expected"]),
        _text(values["answer"]), _text(values.get("audio")), str(values["reason"]), readings,
    )  # fmt: skip


def _text(value: Any) -> str | None:
    if not isinstance(value, str | None):
        raise TypeError("no text")
    return value


def _pair(value: Any) -> Pair | None:
    if value is None:
        return None
    amount, weight = value
    if type(amount) not in (int, float) or type(weight) not in (int, float) or weight < 0:
        raise ValueError("no amount and weight")
    return float(amount), float(weight)
