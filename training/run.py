"""One training run: its folder, where it starts or goes on, what is due after a step, and how it stops."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import yaml
from torch import Tensor

from codec.errors import UserError
from training import checkpoint, processes
from training.checkpoint import Checkpoint
from training.engine import Engine, seed_everything
from training.journal import Journal
from training.recipe import Recipe, kind_of, to_yaml

# Keys that may differ between a run and its continuation: none of them changes what a step computes, but `steps`,
# which stretches the schedule.
MAY_CHANGE = ("out", "steps", "save_every", "keep", "log_every", "validate_every", "engine")


class Run:
    """The state around a trainer's loop.

        with Run(recipe, resume) as run:
            model = ...                                                      # random draws are seeded
            engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
            for step in run.steps():
                ...                                                          # engine.backward(...), engine.step()
                if run.log_due(step):
                    run.journal.write(step, engine.metrics())
                if run.save_due(step):
                    run.save(step, {"model": engine}, write_model, facts)
        return run.model

    resume: False starts afresh and refuses a folder that holds a run; True goes on from the newest whole checkpoint,
        or starts afresh (and
    says so) where the run has none yet; a path goes on from that checkpoint. Nothing is ever overwritten.
    Ctrl-C or SIGTERM finishes the step, saves and leaves with exit status 130 or 143; a second Ctrl-C stops at once.
    """

    def __init__(self, recipe: Recipe, resume: bool | str | Path = False) -> None:
        processes.join()
        self.recipe, self.folder = recipe, Path(recipe.out)
        self._signal: int | None = None
        self._interrupted = False
        self._handlers: dict[int, Any] = {}
        messages: list[str] = []
        # The first process looks at the disk and tells the others, so that all start from the same place.
        found, problem = self._find(resume, messages) if processes.rank() == 0 else (None, None)
        found, problem = processes.gather((found, problem))[0]
        if problem is not None:
            raise UserError(problem)
        self.checkpoint: Checkpoint | None = found
        self.step = found.step if found is not None else 0
        if self.step > recipe.steps:
            raise UserError(
                f"{found.folder} is at step {self.step}, beyond the recipe's steps: {recipe.steps}; raise steps or "
                "change out"
            )
        if processes.rank() == 0:
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            (self.folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
            if found is not None:
                checkpoint.link(self.model, found.model)
        processes.barrier()
        self.journal = Journal(self.folder, kind_of(recipe), recipe.steps, self.step)
        for message in messages:
            self.journal.say(message)
        seed_everything(recipe.seed, -1)  # initial weights; micro-batches are numbered from 0

    def __enter__(self) -> Run:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.journal.close()

    @property
    def model(self) -> Path:
        """Link to the newest checkpoint's model."""
        return self.folder / "model"

    def engine_state(self, name: str = "model") -> Path | None:
        """Folder from which an engine goes on; None in a fresh run."""
        return None if self.checkpoint is None else self.checkpoint.engine(name)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compare what describes the run (vocabulary, tokenizer, data) with its checkpoint.

        Raises UserError that names both sides.
        """
        if self.checkpoint is None:
            return
        for name, value in facts.items():
            stored = self.checkpoint.description.get(name)
            if stored != json.loads(json.dumps(value)):  # as it comes back from the manifest
                raise UserError(
                    f"{self.checkpoint.folder}: it was trained with {name} {stored}, this run has {value}; resume "
                    "with the same"
                )

    def steps(self) -> Iterator[int]:
        """Numbers of the updates still to do, from 1; ends the program after the step in which it was interrupted."""
        for step in range(self.step + 1, self.recipe.steps + 1):
            yield step
            self.journal.advance(step)
            if self._interrupted and step < self.recipe.steps:
                self.journal.say(f"stopped after step {step}; everything is saved: go on with --resume")
                raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def log_due(self, step: int) -> bool:
        return step % self.recipe.log_every == 0 or step == self.recipe.steps

    def validate_due(self, step: int) -> bool:
        every = self.recipe.validate_every
        return every > 0 and (step % every == 0 or step == self.recipe.steps)

    def save_due(self, step: int) -> bool:
        """Whether to save now: at the interval, at the end, or because somebody wants to stop. Collective."""
        self._interrupted = processes.any_process(self._signal is not None)
        return self._interrupted or step % self.recipe.save_every == 0 or step == self.recipe.steps

    def save(
        self,
        step: int,
        engines: Mapping[str, Engine],
        write_model: Callable[[Path, dict[str, Tensor]], None],
        facts: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint (see checkpoint.save)."""
        return checkpoint.save(self.folder, step, to_yaml(self.recipe), engines, write_model, facts, self.recipe.keep)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, self._handlers[number])  # the second time it stops at once
        self.journal.say(f"{signal.Signals(number).name}: finishing this step and saving; once more stops at once")

    def _find(self, resume: bool | str | Path, messages: list[str]) -> tuple[Checkpoint | None, str | None]:
        """The checkpoint to go on from, or the sentence that says why there is none."""
        started = (self.folder / "recipe.yaml").exists() or (self.folder / "checkpoints").exists()
        if not resume:
            if started:
                return (
                    None,
                    f"{self.folder} already holds a run: go on with --resume, or train into another folder with "
                    "out=...",
                )
            return None, None
        try:
            if isinstance(resume, bool):
                found, refused = checkpoint.newest(self.folder)
                if found is None and refused:
                    return None, f"{self.folder}: none of its checkpoints is whole: {next(iter(refused.values()))}"
                if found is None:
                    messages.append(f"{self.folder}: no checkpoint yet; starting from the beginning")
                    return None, None
            else:
                found, refused = checkpoint.load(resume), {}
                newer = [folder.name for folder in checkpoint.folders(self.folder) if folder.name > found.folder.name]
                if newer:
                    return None, (
                        f"{self.folder} holds newer checkpoints than {found.folder.name} (up to {newer[-1]}), which "
                        "are never overwritten; train into another folder with out=..."
                    )
            self._compare_recipes(found)
        except UserError as error:
            return None, str(error)
        for folder, sentence in refused.items():
            messages.append(f"passed over, and kept as {checkpoint.set_aside(folder).name}: {sentence}")
        messages.append(f"going on from {found.folder}")
        return found, None

    def _compare_recipes(self, found: Checkpoint) -> None:
        before, now = yaml.safe_load(found.recipe), yaml.safe_load(to_yaml(self.recipe))
        for key in sorted(before.keys() | now.keys()):
            if key not in MAY_CHANGE and before.get(key) != now.get(key):
                raise UserError(
                    f"{found.folder}: its recipe says {key}: {before.get(key)}, this one {key}: {now.get(key)}; "
                    "resume with the same, or train into another folder with out=..."
                )
