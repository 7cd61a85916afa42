"""Checkpoints: atomic, hashed, self-describing folders.

    RUN/checkpoints/step-00000200/
        manifest.json     step, description, and size and SHA-256 of every other file; written last
        recipe.yaml       the whole recipe
        model/            what `from_pretrained` reads: enough to evaluate and to start the next stage
        engines/NAME/     what the engine needs to go on bit for bit (training/shards.py)
    RUN/model             link to the newest checkpoint's model/

A checkpoint is written under a temporary name, flushed to the disk and renamed, so that a kill at any moment leaves
whole checkpoints only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.errors import UserError
from training import processes, shards
from training.engine import Engine

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint.

    description: versions, git commit, number of processes, and the facts the trainer gave (vocabulary, fingerprints,
        data hash, position)
    """

    folder: Path
    step: int
    description: dict[str, Any]

    @property
    def recipe(self) -> str:
        return (self.folder / "recipe.yaml").read_text(encoding="utf-8")

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def engine(self, name: str = "model") -> Path:
        """Folder of one engine's state."""
        return self.folder / "engines" / name


def save(
    run: Path,
    step: int,
    recipe: str,
    engines: Mapping[str, Engine],
    write_model: Callable[[Path, dict[str, Tensor]], None],
    facts: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint, then drop all but the newest `keep`. Collective. Returns the checkpoint's folder.

    write_model(folder, state): called on the first process to fill model/; state: the first engine's whole state dict
        on the CPU
    facts: JSON values that describe the run (and must still hold when it is resumed)
    """
    final = run / "checkpoints" / f"step-{step:08d}"
    partial = final.with_name(f".{final.name}.partial")
    first = processes.rank() == 0
    if first:
        if final.exists():
            raise UserError(
                f"{final} exists already and is never overwritten; move it away or train into another folder (out=...)"
            )
        for left in final.parent.glob(".step-*.partial"):  # by a kill during an earlier save
            shutil.rmtree(left)
        for name in engines:
            (partial / "engines" / name).mkdir(parents=True)
        (partial / "model").mkdir()
    processes.barrier()
    for position, (name, engine) in enumerate(engines.items()):
        state = engine.state_dict()
        shards.save(engine.sharded, partial / "engines" / name, state, engine.steps_done)
        if first and position == 0:
            write_model(partial / "model", state)
        del state
    if first:
        (partial / "recipe.yaml").write_text(recipe, encoding="utf-8")
    processes.barrier()
    if first:
        manifest = {
            "format": FORMAT,
            "step": step,
            "description": describe() | dict(facts),
            "files": _hash_tree(partial),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
        for path in [*partial.rglob("*"), partial]:
            _flush(path)
        os.rename(partial, final)
        _flush(final.parent)
        link(run / "model", final / "model")
        for old in folders(run)[:-keep]:
            doomed = old.with_name(
                f".{old.name}.partial"
            )  # renamed first: a kill in the middle leaves no half checkpoint
            os.rename(old, doomed)
            shutil.rmtree(doomed)
    processes.barrier()
    return final


def load(folder: str | Path) -> Checkpoint:
    """A checkpoint whose every file agrees with the manifest. Raises UserError that names the file at fault."""
    folder = Path(folder)
    manifest_path = folder / MANIFEST
    if not manifest_path.is_file():
        raise UserError(f"{folder}: not a complete checkpoint (no {MANIFEST}); give a folder RUN/checkpoints/step-...")
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        files, step, description, version = (manifest[key] for key in ("files", "step", "description", "format"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{manifest_path}: damaged ({error}); use another checkpoint") from error
    if version != FORMAT:
        raise UserError(
            f"{manifest_path}: format {version} is not this version's {FORMAT}; use the version that wrote it"
        )
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing from the checkpoint; use another checkpoint")
        if path.stat().st_size != entry["size"] or _sha256(path) != entry["sha256"]:
            raise UserError(f"{path}: damaged (it is not what was written); use another checkpoint")
    return Checkpoint(folder, step, description)


def newest(run: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint of a run that is whole; and each newer one that is not, with the sentence that says why."""
    refused = {}
    for folder in reversed(folders(run)):
        try:
            return load(folder), refused
        except UserError as error:
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
    """The model folder behind a path that a recipe names: a run, a checkpoint or a model folder itself."""
    path = Path(path)
    for candidate in (path / "model", path):
        if (candidate / "config.json").is_file():
            return candidate
    raise UserError(
        f"{path}: no model there (neither config.json nor model/config.json); train it first or correct the path"
    )


def describe() -> dict[str, Any]:
    """Versions, git commit and number of processes of this run."""
    packages = ("torch", "transformers", "deepspeed", "peft", "safetensors", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "versions": versions | {"python": platform.python_version()},
        "git_commit": _git_commit(),
        "processes": processes.world_size(),
    }


def _git_commit() -> str | None:
    """Commit of this source tree, "+changes" where files differ from it, None outside a repository."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def folders(run: Path) -> list[Path]:
    """Folders with a checkpoint's name, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-????????") if path.is_dir())


def _hash_tree(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
