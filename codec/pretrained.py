"""Folders that hold something trained: config.json beside model.safetensors. How they are written and read.

A folder is written whole or not at all: its files take their places when all are there, config.json last, and without
config.json nothing loads. Reading trusts nothing: the configuration is parsed strictly, the shapes in the weights file
are compared with those that the configuration implies before any memory is taken, and every number must be finite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from abc import ABC
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from codec.io.errors import UserError, of_system
from codec.io.files import flush
from codec.io.hub import local_folder
from codec.io.reading import read_json
from codec.io.strict import parse
from codec.io.third_party import said, third_party_errors
from codec.tensor_files import Stored, load_tensors, save_tensors, stored_tensors

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

M = TypeVar("M", bound=nn.Module)


class Pretrained(nn.Module, ABC):
    """A module that is saved to a folder, and loaded from one or from the hub.

    A subclass names its configuration's dataclass, keeps its configuration as `config` and is built from one. Where
    its file holds more or less than that, it overrides `config_values` and `from_config_values`.
    """

    config_class: ClassVar[type]  # dataclass that config.json is parsed into
    described_as: ClassVar[str]  # what messages call it: "scalar autoencoder"
    made_by: ClassVar[str] = ""  # how one comes about, for messages: "train one with ..."
    saved_part: ClassVar[str] = ""  # submodule whose weights the file holds; "": all

    config: Any

    def config_values(self) -> dict[str, Any]:
        """The configuration as plain values; `from_config_values` builds an equal module from it."""
        return dataclasses.asdict(self.config)

    @classmethod
    def from_config_values(cls, values: dict[str, Any], source: str) -> Self:
        """An untrained module.

        Args:
            values: What `config_values` returns.
            source: Names the file in errors.

        Raises:
            UserError: A value is unfit.
        """
        return cls(parse(cls.config_class, values, source))

    def saved_values(self) -> dict[str, Any]:
        """What config.json holds; `read_values` returns that of it which `from_config_values` takes."""
        return self.config_values()

    def write_more(self, scratch: Path, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write what else the folder holds, such as a model card. Overridden where there is something.

        Args:
            scratch: Where to write; its files then take their places in `folder`.
            folder: What is there already may be looked at.
            weights: Those that are saved.
        """

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write model.safetensors and config.json, which comes last.

        Args:
            folder: Is made where it is missing; files of other names stay as they are.
            state_dict: Tensors to write in place of the module's own, where an engine holds the newest.

        Raises:
            UserError: The system refuses to write; `folder` is then as it was.
        """
        weights = {**self.get_submodule(self.saved_part).state_dict(), **(state_dict or {})}
        with saved_folder(folder) as scratch:
            save_tensors(weights, scratch / WEIGHTS_FILE)
            (scratch / CONFIG_FILE).write_text(json.dumps(self.saved_values(), indent=2) + "\n", encoding="utf-8")
            self.write_more(scratch, Path(folder), weights)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """What `save_pretrained` wrote, in eval mode and float32.

        Args:
            source: A folder, or a model id on the hub.

        Raises:
            UserError: A file is missing or damaged, or the files do not fit each other.
        """
        folder = cls.folder_of(source)
        values = cls.read_values(folder)
        path, remedy = str(folder / CONFIG_FILE), "copy it again" + (f", or {cls.made_by}" if cls.made_by else "")
        return load_module(lambda: cls.from_config_values(values, path), folder, remedy, cls.saved_part)

    @classmethod
    def folder_of(cls, source: str | Path) -> Path:
        """The folder, or where the hub's model of that id lies once fetched."""
        return local_folder(source, cls.described_as, (CONFIG_FILE, WEIGHTS_FILE), made_by=cls.made_by)

    @classmethod
    def read_values(cls, folder: Path) -> dict[str, Any]:
        """The configuration in a folder's config.json. Raises UserError where there is none."""
        return read_config(folder, cls.described_as, cls.made_by or "copy it again")


def weights_hash(identity: str, weights: Mapping[str, Tensor]) -> str:
    """Hash of a model: equal exactly where identity and weights are.

    Args:
        identity: Text of what else decides the model's results, such as its configuration.
        weights: Name -> tensor, of any device; the order of the names does not matter, types do.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(identity.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def read_config(folder: str | Path, what: str, made_by: str = "copy it again") -> dict[str, Any]:
    """The values in a folder's config.json.

    Args:
        folder: Where it lies.
        what: What the folder should hold, for messages.
        made_by: How one comes about, for messages.

    Raises:
        UserError: The file is missing or holds no mapping.
    """
    path = Path(folder) / CONFIG_FILE
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; {folder} holds no {what}; {made_by}")
    values = read_json(path, f"{what}'s configuration", made_by)
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold names and values, {{...}}; {made_by}")
    return values


def load_module(build: Callable[[], M], folder: str | Path, remedy: str = "copy both again", part: str = "") -> M:
    """The module of a folder's configuration with the weights of the folder, in eval mode.

    Args:
        build: Makes the module. It is called on torch's meta device too, where tensors have shapes but no memory.
        folder: Holds the weights.
        remedy: What to do about damage, for messages.
        part: Name of the submodule that the weights belong to; "": all.

    Raises:
        UserError: The file is missing or damaged, its tensors are not those of the configuration, or a number in it
            is not finite.
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
    if torch.get_default_device().type == "meta":  # a caller wants shapes alone
        return skeleton.eval()
    module, tensors = build(), load_tensors(path, remedy)
    for name, tensor in tensors.items():
        if name.endswith(".cluster_size") and tensor.min() < 0:  # how often each code was chosen, decayed
            raise UserError(f"{path}: {name} holds a count below 0; {remedy}")
    module.get_submodule(part).load_state_dict(tensors)
    return module.eval()


def require_fit(expected: Mapping[str, Tensor], stored: Mapping[str, Stored], path: Path, remedy: str) -> None:
    """Raise UserError unless a weights file holds exactly the tensors of a state dict: names, shapes and kinds."""
    missing = sorted(set(expected) - set(stored))
    unknown = sorted(set(stored) - set(expected))
    wrong = [
        f"{name} is {stored[name].text} instead of {Stored.of(tensor).text}"
        for name, tensor in expected.items()
        if name in stored and not stored[name].fits(tensor)
    ]
    problems = [f"{len(missing)} weights are missing ({_some(missing)})"] if missing else []
    problems += [f"{len(unknown)} have no place in it ({_some(unknown)})"] if unknown else []
    problems += [f"{len(wrong)} have a different shape or type ({_some(wrong)})"] if wrong else []
    if problems:
        raise UserError(f"{path}: weights do not fit {CONFIG_FILE} beside it: {'; '.join(problems)}; {remedy}")


@contextlib.contextmanager
def saved_folder(folder: str | Path) -> Iterator[Path]:
    """A scratch folder to write into, whose files then take their places in `folder`.

    Until config.json, which comes last, is in its place, nothing loads: there is one whole model, old or new. Weights
    of a model that was saved here before are deleted; all other files stay. Modes of files that are replaced are kept.

    Yields:
        The scratch folder.

    Raises:
        UserError: The system refuses to write; `folder` is then as it was.
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
