"""An engine's state on disk: each process writes the fragments of weights and Adam moments that it owns, under the
parameters' names.

Because a fragment says which part of which parameter it is, a run can go on with another number of processes or
another ZeRO stage, and with the same ones it goes on bit for bit. Everything is safetensors; nothing is pickled.

    frozen.safetensors                     frozen parameters and persistent buffers, written by the first process
    rank-00000-of-00002.safetensors ...    NAME/value, NAME/exp_avg, NAME/exp_avg_sq: flat fp32 fragments; header:
    where each begins
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.io.reading import load_json
from training.engine import processes
from training.engine.processes import deepspeed

FROZEN = "frozen.safetensors"
KINDS = ("value", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Sharded:
    """A model that learns and its optimiser, as DeepSpeed has split them over the processes.

    trainable: name -> parameter that the optimiser changes
    deepspeed: the DeepSpeed engine around model and optimiser
    """

    model: nn.Module
    trainable: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    deepspeed: Any
    zero_stage: int


def save(learning: Sharded, folder: Path, state: dict[str, Tensor], steps_done: int) -> None:
    """Write this process's fragments, and from the first process what does not learn.

    state: `full_state(learning)`; steps_done: number of updates that it has seen
    """
    if processes.rank() == 0:
        frozen = {name: state[name] for name in _static_tensors(learning.model, set(learning.trainable))}
        save_file({name: tensor.contiguous() for name, tensor in frozen.items()}, folder / FROZEN)
    tensors: dict[str, np.ndarray] = {}
    starts: dict[str, int] = {}
    for name, start, views in _fragments(learning):
        starts[name] = start
        tensors |= {f"{name}/{kind}": view.detach().float().cpu().numpy() for kind, view in views.items()}
    header = {"starts": json.dumps(starts), "steps_done": str(steps_done)}
    save_numpy(
        tensors, folder / f"rank-{processes.rank():05d}-of-{processes.world_size():05d}.safetensors", metadata=header
    )


def load_module(model: nn.Module, folder: Path) -> None:
    """Put the saved weights and buffers into a model that no engine holds yet. Every name and shape must agree."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    static = _static_tensors(model, set(trainable))
    try:
        saved = load_file(folder / FROZEN)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / FROZEN}: damaged state of the model ({error}); use another checkpoint") from error
    reader = _Fragments(folder)
    _compare(set(saved), set(static), folder, "frozen")
    _compare(reader.names, set(trainable), folder, "trained")
    with torch.no_grad():
        for name, tensor in static.items():
            if saved[name].shape != tensor.shape:
                raise UserError(
                    f"{folder}: {name} has shape {tuple(saved[name].shape)}, the model's has {tuple(tensor.shape)}"
                )
            tensor.copy_(saved[name])
        for name, parameter in trainable.items():
            parameter.copy_(torch.from_numpy(reader.read(name, "value", 0, parameter.numel())).view(parameter.shape))


def load_optimiser(learning: Sharded, folder: Path) -> int:
    """Put master weights and Adam moments into a fresh engine. Returns the number of updates they have seen."""
    reader = _Fragments(folder)
    with torch.no_grad():
        for name, start, views in _fragments(learning, steps_done=reader.steps_done):
            for kind, view in views.items():
                view.copy_(torch.from_numpy(reader.read(name, kind, start, view.numel())))
    return reader.steps_done


def full_state(learning: Sharded) -> dict[str, Tensor]:
    """The whole model's state dict on the CPU of the first process, {} on the others. Collective."""
    first = processes.rank() == 0
    if learning.zero_stage < 3:
        whole = learning.model.state_dict() if first else {}
        return {name: tensor.detach().cpu().clone() for name, tensor in whole.items()}
    state: dict[str, Tensor] = {}
    parameters = dict(learning.model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        with deepspeed.zero.GatheredParameters(
            [parameter]
        ):  # one at a time: no process ever needs the whole model on its device
            if first:
                state[name] = parameter.detach().cpu().clone()
    if first:
        state |= {n: t.detach().cpu().clone() for n, t in learning.model.state_dict().items() if n not in parameters}
    return state


def _fragments(learning: Sharded, steps_done: int | None = None) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
    """(name, first element, flat views of value and moments) of the parts of parameters that this process owns and
    optimises.

    steps_done: given when loading.
    """
    optimizer, rank = learning.deepspeed.optimizer, processes.rank()
    for name, parameter in learning.trainable.items():
        if learning.zero_stage == 0:
            if rank > 0 and steps_done is None:
                continue  # every process holds the same; the first one writes
            flat, begin, start, count = parameter, 0, 0, parameter.numel()
        elif learning.zero_stage < 3:
            mapping = parameter._hp_mapping
            if mapping is None:
                continue  # other processes hold all of it
            flat = optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
            begin, start, count = (
                mapping.hp_fragment_address.start,
                mapping.lp_fragment_address.start,
                mapping.lp_fragment_address.numel,
            )
        else:
            group, begin, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            flat, start = optimizer.fp32_partitioned_groups_flat[group], rank * size
            count = min(size, parameter.ds_numel - start)
            if count <= 0:
                continue  # the last processes own only padding of a small parameter
        moments = learning.optimiser.state[flat]
        if not moments:  # AdamW makes them at its first step, and just so
            moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
            moments["step"] = torch.tensor(0.0)
        if steps_done is not None:
            moments["step"].fill_(steps_done)
        tensors = {"value": flat.data} | {kind: moments[kind] for kind in KINDS[1:]}
        yield name, start, {kind: tensor.view(-1).narrow(0, begin, count) for kind, tensor in tensors.items()}


class _Fragments:
    """All fragments in a folder, read as slices of whole flat parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = sorted(folder.glob("rank-*-of-*.safetensors"))
        expected = files[0].stem.split("-of-")[1] if files else "1"
        expected = int(expected) if expected.isdecimal() else 0
        if len(files) != expected:
            raise UserError(f"{folder}: {len(files)} of {expected} rank files are here; use another checkpoint")
        self._where: dict[str, list[tuple[int, int, Path]]] = {}
        self.steps_done = 0
        for path in files:
            try:
                with safe_open(path, framework="np") as file:
                    header = file.metadata() or {}
                    self.steps_done = _whole(int(header["steps_done"]))
                    for name, start in dict(load_json(header["starts"], str(path))).items():
                        shapes = [file.get_slice(f"{name}/{kind}").get_shape() for kind in KINDS]
                        if shapes != [shapes[0][:1]] * len(KINDS):
                            raise ValueError(f"{name} has shapes {shapes}")
                        self._where.setdefault(name, []).append((_whole(start), shapes[0][0], path))
            except (SafetensorError, KeyError, ValueError, TypeError, OSError, UserError) as error:
                raise UserError(f"{path}: damaged optimiser state ({error}); use another checkpoint") from error
        self.names = set(self._where)

    def read(self, name: str, kind: str, start: int, count: int) -> np.ndarray:
        """Elements start .. start + count of a parameter's flat tensor, put together from whichever files hold them."""
        result, covered = np.empty(count, np.float32), 0
        for begin, length, path in self._where[name]:
            low, high = max(start, begin), min(start + count, begin + length)
            if low < high:
                with safe_open(path, framework="np") as file:
                    result[low - start : high - start] = file.get_slice(f"{name}/{kind}")[low - begin : high - begin]
                covered += high - low
        total = sum(length for _, length, _ in self._where[name])
        if covered != count or (start == 0 and count > total):
            raise UserError(f"{self.folder}: {name} has {total} elements there, the model's shape needs others")
        return result


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no position")
    return value


def _static_tensors(model: nn.Module, trainable: set[str]) -> dict[str, Tensor]:
    """Frozen parameters (tied ones once) and persistent buffers by name."""
    parameters = dict(model.named_parameters())
    aliases = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in aliases}
    return {name: tensor for name, tensor in (parameters | buffers).items() if name not in trainable}


def _compare(saved: set[str], wanted: set[str], folder: Path, what: str) -> None:
    if saved != wanted:
        missing, extra = sorted(wanted - saved)[:3], sorted(saved - wanted)[:3]
        raise UserError(
            f"{folder}: its {what} tensors are not this model's: missing {missing}, unknown {extra}; resume with the "
            "run's own recipe"
        )
