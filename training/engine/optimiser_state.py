"""An engine's state on disk: each process writes the fragments of weights and Adam moments that it owns.

Because a fragment says which part of which parameter it is, a run can resume with another number of processes or
another ZeRO stage, and with the same ones it resumes bit for bit. Everything is safetensors; nothing is pickled.

    frozen.safetensors                     frozen parameters and persistent buffers, written by the first process
    rank-00000-of-00002.safetensors ...    NAME/value, NAME/exp_avg, NAME/exp_avg_sq: flat fp32 fragments;
                                           header: where each begins, updates done, in float16 the loss scale
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

from codec.io import aliases
from codec.io.errors import UserError
from codec.io.reading import load_json
from training.engine import processes
from training.engine.loss_scale import LossScale
from training.engine.processes import deepspeed

FROZEN = "frozen.safetensors"
KINDS = ("value", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Sharded:
    """A model and its optimiser, as DeepSpeed has split them over the processes."""

    # the model
    model: nn.Module
    # name -> parameter that the optimiser changes
    trainable: dict[str, nn.Parameter]
    # its optimiser
    optimiser: torch.optim.Optimizer
    # the DeepSpeed engine around both
    deepspeed: Any
    # 0 to 3
    zero_stage: int
    # of the loss; None: float16 is not used
    loss_scale: LossScale | None = None

    def applied(self, steps_done: int) -> int:
        """Of so many updates, those that were not passed over for an overflow."""
        return steps_done - (self.loss_scale.skipped if self.loss_scale else 0)


def save(sharded: Sharded, folder: Path, state: dict[str, Tensor], steps_done: int) -> None:
    """Write this process's fragments, and from the first process what is frozen.

    Args:
        sharded: model and optimiser.
        folder: to write into.
        state: `full_state(sharded)`.
        steps_done: number of updates that it has seen.
    """
    if processes.rank() == 0:
        frozen = {name: state[name] for name in _static_tensors(sharded.model, set(sharded.trainable))}
        save_file({name: tensor.contiguous() for name, tensor in frozen.items()}, folder / FROZEN)
    tensors: dict[str, np.ndarray] = {}
    starts: dict[str, int] = {}
    for name, start, views in _fragments(sharded):
        starts[name] = start
        tensors |= {f"{name}/{kind}": view.detach().float().cpu().numpy() for kind, view in views.items()}
    header = {"starts": json.dumps(starts), "steps_done": str(steps_done)}
    if sharded.loss_scale is not None:
        header["loss_scale"] = sharded.loss_scale.dump()
    save_numpy(
        tensors, folder / f"rank-{processes.rank():05d}-of-{processes.world_size():05d}.safetensors", metadata=header
    )


def load_module(model: nn.Module, folder: Path) -> None:
    """Put the saved weights and buffers into a model that no engine holds yet.

    Raises:
        UserError: a name or a shape differs, or a file is missing or damaged.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    static = _static_tensors(model, set(trainable))
    try:
        saved = {aliases.tensor(name): tensor for name, tensor in load_file(folder / FROZEN).items()}
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


def load_optimiser(sharded: Sharded, folder: Path) -> int:
    """Put master weights, Adam moments and loss scale into a fresh engine. Returns the number of updates done."""
    reader = _Fragments(folder)
    if sharded.loss_scale is not None and reader.loss_scale:
        sharded.loss_scale.load(reader.loss_scale, str(folder))
    with torch.no_grad():
        for name, start, views in _fragments(sharded, updates=sharded.applied(reader.steps_done)):
            for kind, view in views.items():
                view.copy_(torch.from_numpy(reader.read(name, kind, start, view.numel())))
    return reader.steps_done


def full_state(sharded: Sharded) -> dict[str, Tensor]:
    """The whole model's state dict on the CPU of the first process, {} on the others. Collective."""
    first = processes.rank() == 0
    if sharded.zero_stage < 3:
        state = sharded.model.state_dict() if first else {}
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    state = {}
    parameters = dict(sharded.model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        # One at a time: no process ever needs the whole model on its device.
        with deepspeed.zero.GatheredParameters([parameter]):
            if first:
                state[name] = parameter.detach().cpu().clone()
    if first:
        state |= {n: t.detach().cpu().clone() for n, t in sharded.model.state_dict().items() if n not in parameters}
    return state


def _fragments(sharded: Sharded, updates: int | None = None) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
    """Name, first element and flat views of value and moments of each part of a parameter that this process optimises.

    Args:
        updates: That the moments have seen; given when loading.
    """
    optimizer, rank = sharded.deepspeed.optimizer, processes.rank()
    for name, parameter in sharded.trainable.items():
        if sharded.zero_stage == 0:
            if rank > 0 and updates is None:
                continue  # every process holds the same; the first one writes
            flat, begin, start, count = parameter, 0, 0, parameter.numel()
        elif sharded.zero_stage < 3:
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
        moments = sharded.optimiser.state[flat]
        if not moments:  # AdamW makes them at its first step, and just so
            moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(flat.data), torch.zeros_like(flat.data)
            moments["step"] = torch.tensor(0.0)
        if updates is not None:
            moments["step"].fill_(updates)
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
        self._where: dict[str, list[tuple[int, int, Path, str]]] = {}  # first element, elements, file, name there
        self.steps_done, self.loss_scale = 0, ""  # as LossScale dumps it; "": none was used
        for path in files:
            try:
                with safe_open(path, framework="np") as file:
                    header = file.metadata() or {}
                    self.steps_done = _whole(int(header["steps_done"]))
                    self.loss_scale = header.get("loss_scale", "")
                    for name, start in dict(load_json(header["starts"], str(path))).items():
                        shapes = [file.get_slice(f"{name}/{kind}").get_shape() for kind in KINDS]
                        if shapes != [shapes[0][:1]] * len(KINDS):
                            raise ValueError(f"{name} has shapes {shapes}")
                        place = (_whole(start), shapes[0][0], path, name)
                        self._where.setdefault(aliases.tensor(name), []).append(place)
            except (SafetensorError, KeyError, ValueError, TypeError, OSError, UserError) as error:
                raise UserError(f"{path}: damaged optimiser state ({error}); use another checkpoint") from error
        self.names = set(self._where)

    def read(self, name: str, kind: str, start: int, count: int) -> np.ndarray:
        """Elements start .. start + count of a parameter's flat tensor, put together from whichever files hold them."""
        result, covered = np.empty(count, np.float32), 0
        for begin, length, path, saved_name in self._where[name]:
            low, high = max(start, begin), min(start + count, begin + length)
            if low < high:
                with safe_open(path, framework="np") as file:
                    saved = file.get_slice(f"{saved_name}/{kind}")
                    result[low - start : high - start] = saved[low - begin : high - begin]
                covered += high - low
        total = sum(length for _, length, _, _ in self._where[name])
        if covered != count or (start == 0 and count > total):
            raise UserError(f"{self.folder}: {name} has {total} elements there, the model's has another number of them")
        return result


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a position")
    return value


def _static_tensors(model: nn.Module, trainable: set[str]) -> dict[str, Tensor]:
    """Frozen parameters (tied ones once) and persistent buffers by name."""
    parameters = dict(model.named_parameters())
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in every}
    return {name: tensor for name, tensor in (parameters | buffers).items() if name not in trainable}


def _compare(saved: set[str], expected: set[str], folder: Path, what: str) -> None:
    if saved != expected:
        missing, extra = sorted(expected - saved)[:3], sorted(saved - expected)[:3]
        raise UserError(
            f"{folder}: its {what} tensors are not this model's: missing {missing}, unknown {extra}; resume with the "
            "run's own recipe"
        )
