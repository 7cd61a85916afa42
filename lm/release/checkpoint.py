"""Released checkpoint files of the published language model: read without running them, and written in their form.

Such a file is a pickle inside a zip archive: {model, optimizer, scheduler, reporter} (published model, §A.6), of which
codec/untrusted_weights.py builds nothing but tensors and plain values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.release.names import seems
from codec.untrusted_weights import PARALLEL as PREFIX
from codec.untrusted_weights import read_weight_file
from lm.config import UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.release.state_dict import GROUPS, LEGACY_QKV, QKV, from_published, legacy_qkv, to_published

RECORD_FILE = "published.json"
TRAINING_STATE = ("optimizer", "scheduler", "reporter")


@dataclass(frozen=True)
class PublishedRecord:
    """What of a released file our model does not hold, kept beside it so that the export is the same file again."""

    # values of the configuration file
    config: dict[str, Any]
    # tensor names in the file's order, with prefixes and the form of QKV that each layer had
    keys: list[str]

    def save(self, folder: str | Path) -> None:
        """Write the record beside a model."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        (Path(folder) / RECORD_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> PublishedRecord | None:
        """The record of an imported model, None where there is none. Raises UserError where it is damaged."""
        path = Path(folder) / RECORD_FILE
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it to export in the current published form") from error


@dataclass(frozen=True)
class Checkpoint:
    """A released file: its tensors as named there, and the names of everything else that it holds."""

    # the file
    path: Path
    # its tensors, by the names there
    model: dict[str, Tensor]
    # names of everything else in it
    others: list[str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a released file, or the model's tensors alone; what lies beside them (optimiser state) is only named.

    Raises:
        UserError: The file is missing, cut short, not such a file, asks for code to be run, or holds NaN.
    """
    file = read_weight_file(path)
    return Checkpoint(Path(path), {file.prefix + key: value for key, value in file.state.items()}, file.others)


def model_from_checkpoint(checkpoint: Checkpoint, config: UniAudioConfig) -> UniAudioForConditionalGeneration:
    """The model with exactly the checkpoint's tensors, in their floating-point type.

    Raises:
        UserError: Tensors do not fit; names each that is missing, left over, there twice, or of another shape or type.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}  # published name -> name in the file
    for key, value in checkpoint.model.items():
        name = _without_prefix(key)
        canonical = _canonical(name)
        if canonical in names:
            raise UserError(
                f"{checkpoint.path}: '{names[canonical]}' and '{key}' are the same tensor; remove one of them"
            )
        names[canonical], tensors[name] = key, value
    _require_fit({_canonical(name): value for name, value in tensors.items()}, names, config, checkpoint.path)

    # Copies: parts of one QKV would share their memory.
    state = {key: value.detach().clone() for key, value in from_published(tensors, config).items()}
    dtype = next(iter(state.values())).dtype
    model = UniAudioForConditionalGeneration.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    return model.eval()


def _require_fit(state: Mapping[str, Tensor], names: Mapping[str, str], config: UniAudioConfig, path: Path) -> None:
    """Raise UserError where `state` (published names) is not the state of a model with this configuration."""
    wanted = published_shapes(config)
    missing, unknown = [key for key in wanted if key not in state], [names[key] for key in state if key not in wanted]
    wrong = [
        f"'{names[key]}' is {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in state and state[key].shape != shape
    ]
    if len(missing) == len(wanted):
        raise UserError(
            f"{path}: holds none of the language model's tensors but {_some(unknown)}{seems(state)}; give the "
            "checkpoint of the language model"
        )
    problems = [f"{len(missing)} tensors are missing ({_some(missing)})"] if missing else []
    problems += [f"{len(unknown)} are not part of the model ({_some(unknown)})"] if unknown else []
    problems += [f"{len(wrong)} have another shape ({_some(wrong)})"] if wrong else []
    if problems:
        raise UserError(
            f"{path}: does not fit its configuration: {'; '.join(problems)}; give the checkpoint and the configuration "
            "file of the same release"
        )
    types = {key: value.dtype for key, value in state.items()}
    first = next(iter(types.values()))
    odd = next((key for key, dtype in types.items() if dtype != first or not dtype.is_floating_point), None)
    if odd:
        raise UserError(
            f"{path}: its tensors are not all of one floating-point type ('{names[odd]}' is {types[odd]}, the first "
            f"{first}); save them again in one type"
        )


def published_shapes(config: UniAudioConfig) -> dict[str, torch.Size]:
    """Name and shape of every published tensor of a model, computed without memory."""
    with torch.device("meta"):
        model = UniAudioForConditionalGeneration(config)
    return {key: value.shape for key, value in to_published(model.state_dict()).items()}


def write_checkpoint(path: str | Path, model: UniAudioForConditionalGeneration, keys: Sequence[str] = ()) -> None:
    """Write the model as a released file; there is no training state in it, so those entries are None.

    Args:
        path: The file.
        model: Whose weights are written.
        keys: Names, order and form of QKV to write, as in `PublishedRecord.keys`; none: the current published form.

    Raises:
        UserError: The keys are not exactly those of the model.
    """
    state = to_published(model.state_dict())
    keys = list(keys) or list(state)
    stored = {}
    for key in keys:
        name = _without_prefix(key)
        if _canonical(name) not in state:
            raise UserError(f"{RECORD_FILE}: the model has no '{key}'; delete that file to export without it")
        value = state[_canonical(name)]
        if name.endswith(LEGACY_QKV):
            value = legacy_qkv(value, next(group for group in GROUPS if name.startswith(group)), model.config)
        # A view would be saved with all the memory that it looks into.
        stored[key] = value.detach().cpu().contiguous().clone()
    left = set(state) - {_canonical(_without_prefix(key)) for key in keys}
    if left:
        raise UserError(f"{RECORD_FILE}: does not list '{min(left)}'; delete that file to export without it")
    torch.save({"model": stored, **dict.fromkeys(TRAINING_STATE)}, path)


def _without_prefix(key: str) -> str:
    while key.startswith(PREFIX):
        key = key.removeprefix(PREFIX)
    return key


def _canonical(name: str) -> str:
    """The name that the tensor has in the current published form."""
    return name.removesuffix(LEGACY_QKV) + QKV if name.endswith(f".{LEGACY_QKV}") else name


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
