"""The folder of an evaluation: whose results are there, and when they may be replaced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codec.io.errors import UserError
from codec.io.files import inside, remove_leftovers
from codec.io.reading import load_json, read_json_lines, read_text
from codec.io.terminal import shown

RESULTS, SAMPLES, TABLE, REPORT, AUDIO, CACHE, DATASETS = (
    "results.json", "samples.jsonl", "results.md", "report.html", "audio", "cache", "datasets",
)  # fmt: skip


class ResultsFolder:
    """An evaluation's folder, to be held locked (codec/io/locks.py) by the one that writes to it.

    The same evaluation may be run again into it: after a kill it resumes, and a finished one gives the same. Results of
    another evaluation are replaced only with `force`; other people's files never are.
    """

    def __init__(self, folder: Path, force: bool = False) -> None:
        """Read whose results are there.

        Args:
            folder: It need not exist yet.
            force: Replace the results of another evaluation.

        Raises:
            UserError: The folder holds what no evaluation has written.
        """
        self.folder, self.force = folder, force
        path = folder / RESULTS
        self._earlier: dict[str, Any] = {}  # identity of the results that are there
        self._sounds: set[str] = set()  # that these results name
        if os.path.lexists(path):
            self._earlier = _identity_in(path)
            if (folder / SAMPLES).is_file():
                self._sounds = _sounds_in(folder / SAMPLES)
        elif not (folder / CACHE).is_dir() and not force:  # no evaluation was begun here
            for name in (SAMPLES, TABLE, REPORT, AUDIO):
                if os.path.lexists(folder / name):
                    raise UserError(
                        f"{folder}: holds {name}, but no {RESULTS}, so no evaluation has written it; give another "
                        "folder with --out, or --force to write there"
                    )

    def require_same(self, asked: Mapping[str, Any]) -> None:
        """Require that the results that are there, if any, are of the same evaluation.

        Args:
            asked: Parts of its identity (`identity_of`, `identity_of_parts`), as many as are known yet.

        Raises:
            UserError: They are of another evaluation, and are not to be replaced.
        """
        if self.force:
            return
        for name, value in asked.items():
            earlier = self._earlier.get(name, value)
            if earlier != value:
                raise UserError(
                    f"{self.folder}: holds the results of another evaluation ({name}: {shown(earlier)} there, "
                    f"{shown(value)} now); give another folder with --out, or --force to replace them"
                )

    def clean(self) -> None:
        """Remove what a killed evaluation left half written."""
        remove_leftovers(self.folder)
        for folder in (self.folder / AUDIO).glob("*/"):
            remove_leftovers(folder)

    def drop_old_sounds(self, kept: Sequence[str]) -> None:
        """Remove the sound files of results that have been replaced, but for those in `kept`."""
        for name in self._sounds.difference(kept):
            try:
                path = inside(self.folder, name)
            except UserError:  # through a link that leads out of the folder
                continue
            path.unlink(missing_ok=True)
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()


def identity_of(
    suites: Sequence[str], tasks: Sequence[tuple[str, int, str]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What makes two evaluations the same before anything is loaded.

    Args:
        suites: Their names.
        tasks: (task, shots, fingerprint) of each.
        settings: As in results.json.
    """
    each = sorted(set(map(tuple, tasks)))  # results have an entry for each codec
    listed = {"suites": sorted(suites), "tasks": [list(task) for task in each]}
    return listed | {name: settings.get(name) for name in ("limit", "untrained_limit", "seed", "candidates")}


def identity_of_parts(head: Mapping[str, Any]) -> dict[str, Any]:
    """What makes them the same once model, codec and data are known: their fingerprints, from results.json's keys."""
    data = head["data"]
    return {
        "model": head.get("model", {}).get("fingerprint"),
        "text_model": head.get("text_model", {}).get("fingerprint"),
        "codec": [head["codec"]["fingerprint"], head["codec"].get("decoding")],
        "codecs": [[codec["fingerprint"], codec["decoding"]] for codec in head.get("codecs", [])],
        "judges": {name: judge["version"] for name, judge in head.get("judges", {}).items()},
        "data": [data["fingerprint"], data["clips"], data.get("hash")],
    }


def _identity_in(path: Path) -> dict[str, Any]:
    text = read_text(path, "file of results")
    try:
        results = load_json(text, str(path))
        tasks = [
            (task["task"], task.get("shots_asked", task["shots"]), task["fingerprint"]) for task in results["tasks"]
        ]
        identity = identity_of([suite["suite"] for suite in results["suites"]], tasks, results["settings"])
        identity |= identity_of_parts(results)
    except (UserError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not the results of an evaluation, or damaged, and not replaced; give another folder with --out, "
            "or move the file away"
        ) from error
    for name, index in (("codec", 1), ("data", 2)):  # earlier versions did not write these
        if identity[name][index] is None:
            del identity[name]
    return identity


def _sounds_in(path: Path) -> set[str]:
    """The sound files in audio/ that samples name."""
    try:
        names = {sample.get("audio") for _, sample in read_json_lines(path)}
    except UserError:  # damaged: the files that it named stay
        return set()
    return {
        name for name in names
        if isinstance(name, str) and name.startswith(f"{AUDIO}/") and name.endswith(".flac") and ".." not in name
    }  # fmt: skip
