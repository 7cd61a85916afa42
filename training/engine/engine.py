"""The engine: one model, its optimiser and DeepSpeed, from one CPU process to many nodes."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.io.errors import UserError
from codec.layers.onednn import has_bfloat16
from training.engine import optimiser_state, processes
from training.engine.loss_scale import LossScale
from training.engine.precision import Computing
from training.engine.processes import deepspeed
from training.engine.schedule import learning_rate
from training.recipe import EngineRecipe, OptimiserRecipe


class Engine:
    """A model in training.

        for index in engine.micro_batches(step):  # this process's part of update `step`
            output = engine(**data.batch(index))
            engine.backward(output.loss, names=...)
            engine.record(text=output.text_loss)
        engine.step()  # raises before the update where a loss or gradient is not finite

    Only parameters that require a gradient when the engine is made are optimised. The update is the mean over the
    recipe's micro-batches whatever the number of processes, and every random number inside a micro-batch is seeded by
    (seed, number of the micro-batch), so that a run gives the same losses on 1, 2 or 4 processes and needs no random
    state to resume.

    Args:
        model: to train; it is moved to this process's device.
        optimiser: AdamW and its schedule.
        engine: how the work is spread over processes and memory.
        total_steps: updates of the whole run, for the schedule.
        seed: of the recipe.
        checkpoint: folder of an engine's state (see training/engine/checkpoint.py) to resume from.

    Raises:
        UserError: the processes cannot share the micro-batches equally, nothing is trainable, the model lacks what the
            recipe asks for, or the checkpoint is of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: OptimiserRecipe,
        engine: EngineRecipe,
        total_steps: int,
        seed: int,
        checkpoint: Path | None = None,
    ) -> None:
        processes.join()
        count = processes.world_size()
        if engine.micro_batches % count:
            raise UserError(
                f"engine.micro_batches is {engine.micro_batches}, which {count} processes cannot share equally; set it "
                f"to a multiple of {count}"
            )
        self.global_micro_batches = engine.micro_batches  # of an update, over all processes
        self.micro_batches_per_rank = engine.micro_batches // count
        self.recipe, self.optimiser_recipe, self.total_steps, self.seed = engine, optimiser, total_steps, seed
        self.steps_done = 0
        self._is_frozen = False
        self._names: list[str] = []
        self._losses: list[Tensor] = []
        self._records: dict[str, list[float | Tensor]] = {}
        if engine.precision in ("mixed", "fp16", "bf16") and processes.device().type == "cpu" and not has_bfloat16():
            warnings.warn(
                f"engine.precision {engine.precision}: this processor multiplies no numbers of 16 bits, so that every "
                "step takes many times as long as with engine.precision=fp32",
                stacklevel=2,
            )
        if engine.activation_checkpointing:
            if not hasattr(model, "activation_checkpointing_enable"):
                raise UserError(
                    f"engine.activation_checkpointing: {type(model).__name__} has no activation checkpointing; set it "
                    "to false"
                )
            model.activation_checkpointing_enable({"use_reentrant": False})
        if checkpoint is not None:
            optimiser_state.load_module(model, checkpoint)
        self.model = model.to(processes.device())
        self.computing = Computing(self.model, engine.precision, self.device.type)
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}  # name -> parameter
        if not self.trainable:
            raise UserError("nothing to train: every parameter of the model is frozen")
        self.optimiser = torch.optim.AdamW(
            _decay_groups(self.trainable.values(), optimiser),
            lr=optimiser.lr,
            betas=optimiser.betas,
            eps=optimiser.eps,
            fused=True,
        )
        self.deepspeed, *_ = deepspeed.initialize(
            model=self.model, optimizer=self.optimiser, config=self._deepspeed_config()
        )
        # One process has nobody to average with; DeepSpeed would copy all gradients into one tensor and back.
        self._reduces = engine.zero_stage > 0 or count > 1
        self.deepspeed.enable_backward_allreduce &= self._reduces
        self.loss_scale = LossScale() if engine.precision == "fp16" else None
        self.sharded = optimiser_state.Sharded(
            self.model, self.trainable, self.optimiser, self.deepspeed, engine.zero_stage, self.loss_scale
        )
        if checkpoint is not None:
            self.steps_done = optimiser_state.load_optimiser(self.sharded, checkpoint)
        # ZeRO 3 would reuse an old gradient, and processes that reduce different parameters would mix them up.
        self._all_must_be_reached = engine.zero_stage == 3 or (engine.zero_stage > 0 and processes.world_size() > 1)
        self._reached: set[str] = set()
        if self._all_must_be_reached:
            for name, parameter in self.trainable.items():
                parameter.register_hook(lambda gradient, name=name: self._reached.add(name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward pass."""
        with self.computing.applied(self.model):
            # A frozen engine is only passed through: DeepSpeed would take the gradient that crosses it for its own.
            return (self.model if self._is_frozen else self.deepspeed)(*args, **kwargs)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return processes.device()

    def micro_batches(self, step: int) -> Iterator[int]:
        """Numbers of this process's micro-batches of update `step` (from 1); seeds all generators before each."""
        first = (step - 1) * self.global_micro_batches
        for index in range(first + processes.rank(), first + self.global_micro_batches, processes.world_size()):
            seed_everything(self.seed, index)
            yield index

    def backward(self, loss: Tensor, names: Sequence[str] = ()) -> None:
        """Add one micro-batch's gradients.

        Args:
            loss: scalar.
            names: of its examples, for the message where the loss is not finite.
        """
        if self._losses:
            self.deepspeed.step()  # tells DeepSpeed that the micro-batch before this one is complete; no update
        self._losses.append(loss.detach())
        self._names.extend(names)
        self._reached.clear()
        if self.loss_scale is not None:
            if self.recipe.zero_stage == 0:
                loss = loss * self.loss_scale.value
            else:  # DeepSpeed multiplies and divides by a scale of its own
                self.deepspeed.optimizer.loss_scale = self.loss_scale.value
        self.deepspeed.backward(loss)
        unreached = sorted(self.trainable.keys() - self._reached) if self._all_must_be_reached else []
        if unreached:
            raise RuntimeError(
                f"no gradient reached {', '.join(unreached[:4])} in this micro-batch; with ZeRO "
                f"{self.recipe.zero_stage} every parameter must take part in every micro-batch, if only times zero"
            )

    def record(self, **values: float | Tensor) -> None:
        """Keep scalars of this micro-batch for `metrics`."""
        for name, value in values.items():
            self._records.setdefault(name, []).append(value.detach() if isinstance(value, Tensor) else value)

    def step(self) -> None:
        """One update with the schedule's learning rate. Collective.

        In float16, one whose gradients overflow is passed over.

        Raises:
            UserError: a loss or the gradient is not finite; nothing has changed then.
        """
        number = self.steps_done + 1
        bad = [float(loss) for loss in self._losses if not math.isfinite(loss)]
        if processes.any_process(bool(bad)):
            raise self._divergence(number, "the loss is", bool(bad))
        lr = learning_rate(self.optimiser_recipe, number, self.total_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        norm = self._clipped_norm() if self.recipe.zero_stage == 0 else 0.0  # elsewhere DeepSpeed clips
        if not math.isfinite(norm):
            if self.loss_scale is None:
                raise self._divergence(number, "the gradient is", True)
            # Its own switch passes the update over, and DeepSpeed counts it.
            self.optimiser.found_inf = torch.ones((), device=self.device)
        self.deepspeed.step()
        self.optimiser.found_inf = None
        if self.recipe.zero_stage > 0:
            norm = float(self.deepspeed.get_global_grad_norm())
            if not self.deepspeed.was_step_applied() or norm < 0:
                norm = math.inf
        survives = math.isfinite(norm)
        self._last = {"lr": lr, "grad_norm": norm} if survives else {"lr": lr}
        if self.loss_scale is not None:
            survives = self.loss_scale.update(overflow=not survives)
            self._last |= {"loss_scale": self.loss_scale.value, "skipped": float(self.loss_scale.skipped)}
        if not survives:
            raise self._divergence(number, "the gradient is", True)
        self._losses, self._names = [], []
        self._step_records, self._records = self._records, {}
        self.steps_done = number

    def _clipped_norm(self) -> float:
        """Norm of the gradients, which are brought to their true scale and clipped."""
        parameters = list(self.trainable.values())
        if not self._reduces:  # as averaging leaves them: Adam takes no gradient for another thing than one of zero
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if self.loss_scale is not None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_div_(gradients, self.loss_scale.value)
        return float(nn.utils.clip_grad_norm_(parameters, self.optimiser_recipe.clip))

    def metrics(self) -> dict[str, float]:
        """Means of the last step's records over its micro-batches and all processes; lr and grad_norm. Collective.

        In float16 also the loss scale, how many updates were passed over so far, and no grad_norm of one that was.
        """
        return _means(self._step_records) | self._last

    def recorded(self) -> dict[str, float]:
        """Means of what was recorded since the last step (by a validation), which is then forgotten. Collective."""
        records, self._records = self._records, {}
        return _means(records)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode (no dropout) without gradients; the mode of every submodule is restored afterwards."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """No gradient reaches this engine's parameters inside (a discriminator while its generator is trained)."""
        self._set_frozen(True)
        try:
            yield
        finally:
            self._set_frozen(False)

    def state_dict(self) -> dict[str, Tensor]:
        """The whole model's state on the CPU, in training precision; {} on all processes but the first. Collective."""
        return optimiser_state.full_state(self.sharded)

    def _set_frozen(self, frozen: bool) -> None:
        self._is_frozen = frozen
        for parameter in self.trainable.values():
            parameter.requires_grad_(not frozen)

    def _divergence(self, step: int, what: str, is_here: bool) -> UserError:
        names = sorted({name for part in processes.gather(self._names if is_here else []) for name in part})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return UserError(
            f"step {step}: {what} not finite (examples: {shown or 'unnamed'}); the weights were not changed: look at "
            "these examples, or lower optimiser.lr, and resume from the last checkpoint with --resume"
        )

    def _deepspeed_config(self) -> dict[str, Any]:
        recipe = self.recipe
        zero: dict[str, Any] = {"stage": recipe.zero_stage}
        if recipe.offload_optimiser:
            zero["offload_optimizer"] = {"device": "cpu"}
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": self.micro_batches_per_rank,
            "gradient_clipping": self.optimiser_recipe.clip if recipe.zero_stage > 0 else 0.0,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
        }
        if recipe.precision == "bf16":
            config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        return config


def seed_everything(seed: int, *numbers: int) -> None:
    """Seed Python's, numpy's and torch's generators with a stable hash of the numbers."""
    digest = hashlib.blake2b(repr((seed, *numbers)).encode(), digest_size=8).digest()
    value = int.from_bytes(digest, "little") >> 1  # torch takes 63 bits
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def _decay_groups(parameters: Any, recipe: OptimiserRecipe) -> list[dict[str, Any]]:
    """Weight decay for matrices and embeddings, none for gains and biases; groups without members are left out."""
    matrices, vectors = [], []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _means(records: dict[str, list[float | Tensor]]) -> dict[str, float]:
    """Mean of each name's values over all processes; processes may have recorded different names."""
    local = {name: (sum(float(value) for value in values), len(values)) for name, values in records.items()}
    totals: dict[str, tuple[float, int]] = {}
    for part in processes.gather(local):
        for name, (value, count) in part.items():
            before = totals.get(name, (0.0, 0))
            totals[name] = (before[0] + value, before[1] + count)
    return {name: value / count for name, (value, count) in totals.items()}
