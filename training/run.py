"""One training run: its folder, where it starts or resumes, what is due after a step, and how it stops."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from torch import Tensor

from codec.io import aliases
from codec.io.errors import UserError, of_system
from codec.io.files import remove_leftovers, write_text
from codec.io.locks import locked
from codec.io.shipped import located
from codec.io.terminal import say, shown
from training.engine import checkpoint, processes
from training.engine.checkpoint import Checkpoint
from training.engine.engine import Engine, seed_everything
from training.inputs import contents
from training.metrics import FILE, FORMER_FILE, MetricLogger
from training.recipe import Recipe, kind_of, to_yaml
from training.resume import Continuation, Resume, compare_contents, compare_facts, compare_recipes, continuation

OWN = ("recipe.yaml", FILE, FORMER_FILE, "checkpoints", "tensorboard", "model")  # contents of a run's folder

_ECHO = 2.0  # seconds within which a launcher passes on the signal that its processes had from the terminal already


class Run:
    """The state around a trainer's loop.

        with Run(recipe, resume) as run:
            model = ...  # random numbers are seeded
            engine = Engine(model, recipe.optimiser, recipe.engine, recipe.steps, recipe.seed, run.engine_state())
            for step in run.steps():
                ...  # engine.backward(...), engine.step()
                if run.log_due(step):
                    run.metric_logger.write(step, engine.metrics())
                if run.save_due(step):
                    run.save(step, {"model": engine}, write_model, facts)
        return run.model

    Args:
        recipe: of the run.
        resume: False starts afresh and refuses a folder that holds a run; True resumes from the newest whole
            checkpoint, or starts afresh (with a message) where the run has none yet; a path resumes from that
            checkpoint; a Continuation also states what may have changed. Nothing is ever overwritten.

    The folder is this run's alone while it is entered (codec/io/locks.py). Nothing is written into it before the first
    step is done, so that a run that cannot begin leaves nothing behind. Ctrl-C or SIGTERM finishes the step, saves and
    leaves with exit status 130 or 143; a second one stops at once, and so does the first one before the first step.
    """

    def __init__(self, recipe: Recipe, resume: Resume = False) -> None:
        self.recipe, self.folder = recipe, Path(recipe.out)
        self.checkpoint: Checkpoint | None = None
        self.step = 0
        self._asked = continuation(resume)
        self._contents: dict[str, list[str]] = {}
        self._changes: list[str] = []
        self._damaged: dict[Path, str] = {}
        self._signal: tuple[int, float] | None = None  # which, and when it came
        self._is_training = self._interrupted = self._begun = False

    def __enter__(self) -> Run:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals())
            stack.enter_context(processes.lost_processes())
            processes.join()
            messages: list[str] = []
            # The first process reads the disk for all, so that all start from the same checkpoint.
            with processes.together():
                if processes.rank() == 0:
                    check_place(self.recipe)
                    stack.enter_context(locked(self.folder, "a training run"))
                    self._contents = contents(self.recipe)
                    messages = self._find()
            self.checkpoint = processes.gather(self.checkpoint)[0]
            self.step = self.checkpoint.step if self.checkpoint is not None else 0
            if self.step > self.recipe.steps:
                raise UserError(
                    f"{self.checkpoint.folder} is at step {self.step}, beyond the recipe's steps: {self.recipe.steps}; "
                    "raise steps or change out"
                )
            kind = kind_of(self.recipe)
            self.metric_logger = MetricLogger(self.folder, kind, self.recipe.steps, self.step, self._begin)
            stack.callback(self.metric_logger.close)
            for message in messages:
                self.metric_logger.info(message)
            seed_everything(self.recipe.seed, -1)  # initial weights; micro-batches are numbered from 0
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def model(self) -> Path:
        """Link to the newest checkpoint's model."""
        return self.folder / "model"

    def engine_state(self, name: str = "model") -> Path | None:
        """Folder from which an engine resumes; None in a fresh run."""
        return None if self.checkpoint is None else self.checkpoint.engine(name)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compare what describes the run (vocabulary, tokenizer, data) with its checkpoint.

        Raises:
            UserError: they differ; both sides are named.
        """
        if self.checkpoint is None:
            return
        facts = json.loads(json.dumps(dict(facts)))  # as they come back from the manifest
        source, asked = str(self.checkpoint.folder), self._asked or Continuation()
        recorded = aliases.present(type(self.recipe), self.checkpoint.description, source)
        changes, unknown = compare_facts(recorded, facts, source, asked)
        self._changes += changes
        for change in changes:
            self.metric_logger.info(f"allowed: {change}")
        if unknown:
            self.metric_logger.info(f"{source}: does not state its {', '.join(unknown)}, which is not compared")

    def steps(self) -> Iterator[int]:
        """Numbers of the updates still to do, from 1; ends the program after the step in which it was interrupted."""
        self._is_training = True
        for step in range(self.step + 1, self.recipe.steps + 1):
            yield step
            self.metric_logger.advance(step)
            if self._interrupted:
                self.metric_logger.info(f"stopped after step {step}; everything is saved: resume with --resume")
                raise SystemExit(128 + (self._signal[0] if self._signal else signal.SIGTERM))
        with processes.together():
            self._begin()  # where no step was left to do

    def log_due(self, step: int) -> bool:
        """Whether to write metrics after this step."""
        return step % self.recipe.log_every == 0 or step == self.recipe.steps

    def validate_due(self, step: int) -> bool:
        """Whether to validate after this step."""
        every = self.recipe.validate_every
        return every > 0 and (step % every == 0 or step == self.recipe.steps)

    def save_due(self, step: int) -> bool:
        """Whether to save now: at the interval, at the end, or because of a signal to stop. Collective."""
        self._interrupted = processes.any_process(self._signal is not None)
        return self._interrupted or step % self.recipe.save_every == 0 or step == self.recipe.steps

    def save(
        self,
        step: int,
        engines: Mapping[str, Engine],
        write_model: Callable[[Path, dict[str, Tensor]], None],
        facts: Mapping[str, Any],
    ) -> Path:
        """Write a checkpoint; arguments and errors as of checkpoint.save. Collective."""
        with processes.together():
            self._begin()
        facts = dict(facts) | {"inputs": self._contents, "changes": self._changes}
        return checkpoint.save(self.folder, step, to_yaml(self.recipe), engines, write_model, facts, self.recipe.keep)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM come to `_stop` inside."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        first, now = self._signal, time.monotonic()
        if first is not None and processes.is_launched() and now - first[1] < _ECHO:
            return
        self._signal = first or (number, now)
        if first is None and not self._is_training and processes.rank() == 0:
            say("stopped before the first step; nothing was written")
        if first is not None or not self._is_training:
            raise SystemExit(128 + number)
        self.metric_logger.info(
            f"{signal.Signals(number).name}: finishing this step and saving; once more stops at once"
        )

    def _begin(self) -> None:
        """Make the folder a run's, once a step is done. Only the first process has anything to do."""
        if self._begun or processes.rank() > 0:
            return
        self._begun = True
        try:
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            for folder, sentence in self._damaged.items():
                self.metric_logger.info(f"passed over, and kept as {checkpoint.set_aside(folder).name}: {sentence}")
            write_text(self.folder / "recipe.yaml", to_yaml(self.recipe))
            if self.checkpoint is not None:
                checkpoint.link(self.model, self.checkpoint.model)
        except OSError as error:
            raise of_system(error, self.folder) from error

    def _find(self) -> list[str]:
        """Find the checkpoint to resume from and compare it with this run. Returns messages about it."""
        if self._asked is None:
            taken = next((name for name in OWN if os.path.lexists(self.folder / name)), None)
            if taken in ("recipe.yaml", "checkpoints"):
                raise UserError(
                    f"{self.folder} already holds a run: resume it with --resume, or train into another folder with "
                    "out=..."
                )
            if taken is not None:
                raise UserError(
                    f"{self.folder}: holds {taken}, which is not replaced; choose another folder with out=..."
                )
            return []
        if self._asked.checkpoint is None:
            found, self._damaged = checkpoint.newest(self.folder)
            if found is None and self._damaged:
                raise UserError(
                    f"{self.folder}: none of its checkpoints is whole: {next(iter(self._damaged.values()))}"
                )
            if found is None:
                return [f"{self.folder}: no checkpoint yet; starting from the beginning"]
        else:
            found = checkpoint.load(self._asked.checkpoint)
            newer = [place.name for place in checkpoint.folders(self.folder) if checkpoint.step_of(place) > found.step]
            if newer:
                raise UserError(
                    f"{self.folder} holds newer checkpoints than {found.folder.name} (up to {newer[-1]}), which are "
                    "never overwritten; train into another folder with out=..."
                )
        messages = [f"resuming from {found.folder}", *self._compare(found)]
        self.checkpoint = found
        return messages

    def _compare(self, found: Checkpoint) -> list[str]:
        """Raise UserError where the run would not continue as it began; a line for each change that is allowed."""
        source, messages, same, changes = str(found.folder), [], [], []
        recorded = found.description.get("inputs")
        if isinstance(recorded, dict):
            same, changes = compare_contents(recorded, self._contents, self.recipe, source, self._asked)
        elif self._contents:
            messages.append(
                f"{source}: does not state what its {', '.join(self._contents)} held, which is not compared"
            )
        changes += compare_recipes(found.recipe, to_yaml(self.recipe), type(self.recipe), source, self._asked, same)
        before = found.description.get("changes")
        self._changes = [*(before if isinstance(before, list) else []), *(f"step {found.step}: {c}" for c in changes)]
        return messages + [f"allowed: {change}" for change in changes]


def check_place(recipe: Recipe) -> None:
    """Check that a run's folder is in the way of nothing else.

    Raises:
        UserError: it is; the message names `out`.
    """
    out = Path(recipe.out)
    try:
        place = out.resolve()
        if recipe.out.startswith("~"):
            raise UserError(
                f"out: {shown(recipe.out)}: no shell has replaced it by your home folder; write the whole path"
            )
        if os.path.lexists(out) and not out.is_dir():
            raise UserError(f"out: {out} is a file; name a folder for the run")
        if Path.cwd().resolve().is_relative_to(place) or Path.home().resolve() == place:
            raise UserError(f"out: {shown(recipe.out)} is a folder that holds other things; name one for the run alone")
        for parent in (place, *place.parents):
            if (parent / checkpoint.MANIFEST).is_file() and checkpoint.step_of(parent) is not None:
                raise UserError(f"out: {out} lies in the checkpoint {parent}; name a folder for the run alone")
        for key in recipe.READS:
            for read in map(located, recipe.read_under(key)):
                held = (place, *place.parents) if (read / "config.json").is_file() else (place,)  # within a model, too
                if read.is_dir() and read.resolve() in held:
                    raise UserError(f"out: {out} is or lies in {read}, which is read as {key}; name another folder")
    except OSError as error:
        raise of_system(error, f"out: {shown(recipe.out)}") from error
    except (ValueError, RuntimeError) as error:  # a NUL in the name; no home folder
        raise UserError(f"out: {shown(recipe.out)}: no folder can have that name; choose another one") from error
