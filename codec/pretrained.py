"""Folders that hold something trained: config.json beside model.safetensors. How they are written and read.

A folder is written whole or not at all: its files take their places when all are there, config.json last, and without
config.json nothing loads. It is read with doubt: the configuration strictly, then the shapes of the weights file are
held against those that the configuration means, before any memory is taken, then the numbers must be finite.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from codec.io.errors import UserError, of_system
from codec.io.files import flush
from codec.io.reading import read_json
from codec.io.tensor_files import Stored, load_tensors, stored_tensors
from codec.io.third_party import said, third_party_errors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

M = TypeVar("M", bound=nn.Module)


def read_config(folder: str | Path, what: str, made_by: str = "copy it again") -> dict[str, Any]:
    """The values in a folder's config.json. Raises UserError where they are none.

    what, made_by: what the folder should hold, and how one comes about, for the message
    """
    path = Path(folder) / CONFIG_FILE
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; {folder} holds no {what}; {made_by}")
    values = read_json(path, f"{what}'s configuration", made_by)
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold names and values, {{...}}; {made_by}")
    return values


def load_module(build: Callable[[], M], folder: str | Path, remedy: str = "copy both again", part: str = "") -> M:
    """What `build` makes of a folder's configuration, with the weights of the folder, in eval mode.

    build: makes the module. It is called on torch's meta device too, where tensors have shapes but no memory.
    part: name of the submodule that the weights are of; "": all
    Raises UserError where the file is missing or damaged, its tensors are not those of the configuration, or a number
    in it is not finite.
    """
    path = Path(folder) / WEIGHTS_FILE
    config = Path(folder) / CONFIG_FILE
    try:
        with third_party_errors(config, "describes nothing that can be built", remedy), torch.device("meta"):
            skeleton = build()
    except UserError as error:
        raise error if str(error).startswith(str(config)) else UserError(f"{config}: {error}") from error
    stored = stored_tensors(path, remedy)
    require_fit(skeleton.get_submodule(part).state_dict(), stored, path, remedy)
    if torch.get_default_device().type == "meta":  # for somebody else's skeleton
        return skeleton.eval()
    module, tensors = build(), load_tensors(path, remedy)
    for name, tensor in tensors.items():
        if name.endswith(".cluster_size") and tensor.min() < 0:  # how often each code was chosen, decayed
            raise UserError(f"{path}: {name} holds a count below 0; {remedy}")
    module.get_submodule(part).load_state_dict(tensors)
    return module.eval()


def require_fit(wanted: Mapping[str, Tensor], stored: Mapping[str, Stored], path: Path, remedy: str) -> None:
    """Raise UserError where a weights file holds not exactly the tensors of a state dict: names, shapes and kinds."""
    missing = sorted(set(wanted) - set(stored))
    unknown = sorted(set(stored) - set(wanted))
    wrong = [
        f"{name} is {stored[name].text} instead of {Stored.of(tensor).text}"
        for name, tensor in wanted.items()
        if name in stored and not stored[name].fits(tensor)
    ]
    problems = [f"{len(missing)} weights are missing ({_some(missing)})"] if missing else []
    problems += [f"{len(unknown)} have no place in it ({_some(unknown)})"] if unknown else []
    problems += [f"{len(wrong)} have another shape or type ({_some(wrong)})"] if wrong else []
    if problems:
        raise UserError(f"{path}: weights do not fit {CONFIG_FILE} beside it: {'; '.join(problems)}; {remedy}")


@contextlib.contextmanager
def saved_folder(folder: str | Path) -> Iterator[Path]:
    """A scratch folder to write into, whose files then take their places in `folder`.

    Until config.json, which comes last, is in its place, nothing loads: what is there is one whole model or another.
    Weights of a model that was saved here before go; all other files stay. Modes of files that are replaced are kept.
    Raises UserError for what the system refuses; `folder` is then as it was.
    """
    folder = Path(folder)
    scratch = folder / f".tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    is_new = not folder.exists()
    try:
        scratch.mkdir(parents=True)
        yield scratch
        written = sorted((path for path in scratch.rglob("*") if path.is_file()), key=_config_last)
        for path in written:
            before = folder / path.relative_to(scratch)
            if before.is_file():
                path.chmod(before.stat().st_mode & 0o7777)
            flush(path)
        for place in (folder / path.parent.relative_to(scratch) for path in written if path.name == CONFIG_FILE):
            for old in (place / CONFIG_FILE, *place.glob("model*.safetensors*")):
                old.unlink(missing_ok=True)
        for path in written:
            place = folder / path.relative_to(scratch)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        flush(folder)
    except SafetensorError as error:  # what the system refuses comes as text here
        raise UserError(
            f"{folder}: could not be written ({said(error)}); make room, or choose another place"
        ) from error
    except OSError as error:
        inside = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(scratch)
        raise of_system(error, folder if inside or error.filename is None else None) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only where nothing was written


def _config_last(path: Path) -> tuple[bool, str]:
    return path.name == CONFIG_FILE, str(path)


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:2]) + (", ..." if len(items) > 2 else "")
