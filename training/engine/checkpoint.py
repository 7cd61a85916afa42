"""Checkpoints: atomic, hashed, self-describing folders.

    RUN/checkpoints/step-00000200/
        manifest.json     step, description, size and SHA-256 of every other file, and its own hash; written last
        recipe.yaml       the whole recipe
        model/            what `from_pretrained` reads: enough to evaluate and to start the next stage
        engines/NAME/     what the engine needs to resume bit for bit (training/engine/optimiser_state.py)
    RUN/model             link to the newest checkpoint's model/

A checkpoint is written under a temporary name, flushed to the disk and renamed, so that a kill at any moment leaves
whole checkpoints only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.io.errors import UserError, of_system, writing
from codec.io.files import flush, inside, sha256_of
from codec.io.provenance import git_commit, versions
from codec.io.reading import load_json
from codec.io.shipped import located
from codec.io.terminal import shown
from training.engine import optimiser_state, processes
from training.engine.engine import Engine

MANIFEST = "manifest.json"
FORMAT = 2
READABLE = (1, 2)  # 1 had no hash of the manifest itself
FORMER_ENGINES = {"discriminator": "critic"}  # name of an engine -> that of earlier versions

_FOLDER = re.compile(r"step-(\d{8,19})")


class Damaged(UserError):
    """A checkpoint that is not what was written; an older one may be whole."""


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    # RUN/checkpoints/step-...
    folder: Path
    # updates done
    step: int
    # versions, git commit, number of processes, and the trainer's facts (vocabulary, fingerprints, data hash, position)
    description: dict[str, Any]

    @property
    def recipe(self) -> str:
        """Of the run, as YAML."""
        return (self.folder / "recipe.yaml").read_text(encoding="utf-8")

    @property
    def model(self) -> Path:
        """Folder that `from_pretrained` reads."""
        return self.folder / "model"

    def position(self, name: str) -> int:
        """A count among the facts, such as how far the data has been read.

        Raises:
            Damaged: it is missing or not a count.
        """
        value = self.description.get(name)
        if type(value) is not int or value < 0:
            raise Damaged(f"{self.folder / MANIFEST}: damaged ({name} is {shown(value)}); use another checkpoint")
        return value

    def engine(self, name: str = "model") -> Path:
        """Folder of one engine's state."""
        folder = self.folder / "engines" / name
        return folder if folder.exists() else folder.with_name(FORMER_ENGINES.get(name, name))


def save(
    run: Path,
    step: int,
    recipe: str,
    engines: Mapping[str, Engine],
    write_model: Callable[[Path, dict[str, Tensor]], None],
    facts: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint, then drop all but the newest `keep`. Collective.

    Args:
        run: folder of the run.
        step: updates done.
        recipe: of the run, as YAML.
        engines: by name; the first one holds the model.
        write_model: called on the first process with the folder to fill and the first engine's whole state dict on the
            CPU.
        facts: JSON values that describe the run (and must still hold when it is resumed).
        keep: checkpoints that stay.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: a process cannot write; raised in every process. Nothing is left of the checkpoint then, and the
            earlier ones stay.
    """
    final = run / "checkpoints" / f"step-{step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    first = processes.rank() == 0
    try:
        with processes.together(), writing(final):
            if first:
                _make_room(final, partial, engines)
        for position, (name, engine) in enumerate(engines.items()):
            state = engine.state_dict()
            with processes.together(), writing(final):
                optimiser_state.save(engine.sharded, partial / "engines" / name, state, engine.steps_done)
                if first and position == 0:
                    write_model(partial / "model", state)
            del state
        with processes.together(), writing(final):
            if first:
                (partial / "recipe.yaml").write_text(recipe, encoding="utf-8")
                _write_manifest(partial, step, facts)
                for path in [*partial.rglob("*"), partial]:
                    flush(path)
                os.rename(partial, final)
                flush(final.parent)
    except UserError:
        if first:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    with processes.together(), writing(run):
        if first:
            link(run / "model", final / "model")
            for old in folders(run)[:-keep]:
                doomed = old.with_name(f".{old.name}.partial")  # renamed first: a kill here leaves no half checkpoint
                os.rename(old, doomed)
                shutil.rmtree(doomed)
    return final


def _make_room(final: Path, partial: Path, engines: Mapping[str, Engine]) -> None:
    """Empty folders to write a checkpoint into."""
    if final.exists():
        raise UserError(
            f"{final} exists already and is never overwritten; move it away or train into another folder (out=...)"
        )
    for left in final.parent.glob(".step-*.partial"):  # by a kill during an earlier save
        shutil.rmtree(left)
    for name in engines:
        (partial / "engines" / name).mkdir(parents=True)
    (partial / "model").mkdir()


def _write_manifest(folder: Path, step: int, facts: Mapping[str, Any]) -> None:
    manifest = {"format": FORMAT, "step": step, "description": describe() | dict(facts), "files": _hash_tree(folder)}
    manifest = json.loads(json.dumps(manifest))  # as it will be read
    manifest["sha256"] = _hash_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")


def load(folder: str | Path) -> Checkpoint:
    """A checkpoint whose every file agrees with the manifest.

    Raises:
        Damaged: one does not; it is named.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).exists():
        raise Damaged(f"{folder}: not a complete checkpoint (no {MANIFEST}); give a folder RUN/checkpoints/step-...")
    try:
        manifest = _read_manifest(folder)
        for name, (size, sha256) in manifest.files.items():
            path = inside(folder, name)
            if not path.is_file():
                raise Damaged(f"{path}: missing from the checkpoint; use another checkpoint")
            if path.stat().st_size != size or sha256_of(path) != sha256:
                raise Damaged(f"{path}: damaged (it is not what was written); use another checkpoint")
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            hidden = any(part.startswith(".") for part in name.split("/"))  # left by a file manager or a file system
            if path.is_file() and not hidden and name not in (MANIFEST, *manifest.files):
                raise Damaged(f"{path}: damaged checkpoint (its {MANIFEST} does not name this); use another checkpoint")
    except OSError as error:
        raise of_system(error, None if error.filename else folder) from error
    return Checkpoint(folder, manifest.step, manifest.description)


@dataclass(frozen=True)
class _Manifest:
    # updates done
    step: int
    # as of Checkpoint
    description: dict[str, Any]
    # name -> size in bytes, SHA-256
    files: dict[str, tuple[int, str]]


def _read_manifest(folder: Path) -> _Manifest:
    """A checkpoint's manifest, every value of its type. Raises Damaged, and OSError."""
    path = folder / MANIFEST
    try:
        values = load_json(path.read_bytes().decode("utf-8"), str(path))
    except (UserError, UnicodeDecodeError) as error:
        raise Damaged(f"{path}: damaged ({error}); use another checkpoint") from error
    version = values.get("format") if isinstance(values, dict) else None
    if isinstance(version, int) and version not in READABLE:
        raise UserError(
            f"{path}: format {version} must be one of {READABLE} in this version; use the version that wrote it"
        )
    problem = _problem(values, folder)
    if problem:
        raise Damaged(f"{path}: damaged ({problem}); use another checkpoint")
    files = {name: (entry["size"], entry["sha256"]) for name, entry in values["files"].items()}
    return _Manifest(values["step"], values["description"], files)


def _problem(values: Any, folder: Path) -> str:
    """What is wrong with a manifest; "" where nothing is."""
    if not isinstance(values, dict) or values.get("format") not in READABLE:
        return "it states no format"
    if values["format"] > 1 and values.get("sha256") != _hash_of(values):
        return "it is not what was written"
    step, files = values.get("step"), values.get("files")
    if type(step) is not int or step < 1 or step_of(folder) not in (None, step):
        return f"step {shown(step)} in {folder.name}"
    if not isinstance(values.get("description"), dict) or not isinstance(files, dict):
        return "description and files must be groups of keys"
    for name, entry in files.items():
        if not isinstance(entry, dict) or type(entry.get("size")) is not int or type(entry.get("sha256")) is not str:
            return f"size and hash of {shown(name)}"
        try:
            inside(folder, name)
        except (UserError, ValueError):  # ValueError: a NUL
            return f"{shown(name)} is not a file of a checkpoint"
    return "" if "recipe.yaml" in files else "it does not name recipe.yaml"


def _hash_of(manifest: Mapping[str, Any]) -> str:
    """Of everything in a manifest but this hash itself."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def newest(run: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint of a run that is whole; and each newer one that is not, with the reason."""
    refused = {}
    for folder in reversed(folders(run)):
        try:
            return load(folder), refused
        except Damaged as error:  # an error of the system is raised: it can be mended
            refused[folder] = str(error)
    return None, refused


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint out of the way of the one that will be written anew. Returns its new place."""
    places = (folder.with_name(f"{folder.name}.damaged{number or ''}") for number in itertools.count())
    place = next(place for place in places if not place.exists())
    os.rename(folder, place)
    return place


def link(place: Path, model: Path) -> None:
    """Make `place` a link to the folder `model`, in one atomic step."""
    if place.exists() and not place.is_symlink():
        raise UserError(f"{place} is in the way of the link to the newest model; move it away")
    fresh = place.with_name(".model.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(model, place.parent), target_is_directory=True)
    os.replace(fresh, place)


def resolve_model(path: str | Path) -> Path:
    """The model folder behind what a recipe names: a run, a checkpoint, a model folder itself, or a shipped one.

    Raises:
        UserError: there is none.
    """
    path = located(path)
    for candidate in (path / "model", path):
        if (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"{path}: no model there (neither config.json nor model/config.json); train it first or correct the path"
    )


def model_or_id(source: str) -> str | Path:
    """The model folder behind a run's folder; what is not a folder is taken as a hub id."""
    return resolve_model(source) if located(source).is_dir() else source


def describe() -> dict[str, Any]:
    """Versions, git commit and number of processes of this run."""
    packages = ("torch", "transformers", "deepspeed", "peft", "safetensors", "numpy")
    return {"versions": versions(packages), "git_commit": git_commit(), "processes": processes.world_size()}


def step_of(folder: Path) -> int | None:
    """The step in the name of a checkpoint's folder; None in any other name."""
    found = _FOLDER.fullmatch(folder.name)
    return int(found[1]) if found else None


def folders(run: Path) -> list[Path]:
    """Folders with a checkpoint's name, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if step_of(path) is not None and path.is_dir()]
    return sorted(found, key=lambda path: (step_of(path), path.name))


def _hash_tree(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }
