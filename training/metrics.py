"""The metrics log of a run: JSON lines and TensorBoard scalars; a progress bar or plain lines on the console."""

from __future__ import annotations

import errno
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from codec.io.errors import UserError, of_system
from codec.io.files import replace_file
from codec.io.reading import load_json
from codec.io.terminal import printable
from training.engine import processes
from training.tensorboard_events import ScalarEvents

FILE = "metrics.jsonl"
FORMER_FILE = "journal.jsonl"  # its name in run folders of earlier versions
# Former beginnings of the names of metrics on the dev split.
_FORMER_PREFIXES = ("held_out_", "validation_")


class MetricLogger:
    """Writes RUN/metrics.jsonl and RUN/tensorboard. Only the first process writes; all must call `write`.

    Metrics on the dev split are named val/NAME.

    Args:
        run: folder of the run.
        name: of the trainer, for the console.
        steps: of the whole run.
        step: where the run resumes; entries after it, left by a run that was killed, are dropped, so that the log tells
            one story.
        before_first: called in the first process before the first entry, until which nothing is written.
    """

    def __init__(
        self, run: Path, name: str, steps: int, step: int = 0, before_first: Callable[[], None] = lambda: None
    ) -> None:
        self._counts: dict[str, float] = {}
        self._since = time.perf_counter()
        self._first = processes.rank() == 0
        if not self._first:
            return
        self._run, self._step, self._steps, self._before_first = run, step, steps, before_first
        self._file: BinaryIO | None = None
        self._events: ScalarEvents | None = None
        self._console = Console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task(name, total=steps, completed=step, note="")
        self._progress.start()
        self._name = name

    def count(self, **amounts: float) -> None:
        """Add to the work this process has done (rows, seconds); `write` reports it per second, over all processes."""
        for name, amount in amounts.items():
            self._counts[name] = self._counts.get(name, 0.0) + amount

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One entry. Collective."""
        elapsed, self._since = time.perf_counter() - self._since, time.perf_counter()
        parts, self._counts = processes.gather(self._counts), {}
        if not self._first:
            return
        names = sorted({name for part in parts for name in part})
        rates = {f"{name}_per_second": round(sum(part.get(name, 0.0) for part in parts) / elapsed, 1) for name in names}
        entry = {"step": step} | dict(values) | rates | {"time": round(time.time(), 1)}
        self._append(step, entry, dict(values) | rates)
        note = "  ".join(f"{name} {value:.4g}" for name, value in (dict(values) | rates).items())
        self._progress.update(self._task, completed=step, note=note)
        if not self._console.is_terminal:
            self.info(f"{self._name} {step}/{self._steps}  {note}")

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self._first:
            self._progress.update(self._task, completed=step)

    def info(self, text: str) -> None:
        """One line on the console."""
        if self._first:
            self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """End the progress bar and close the files."""
        if self._first:
            self._progress.stop()
            for file in (self._events, self._file):
                if file is not None:
                    file.close()

    def _append(self, step: int, entry: Mapping[str, float], scalars: Mapping[str, float]) -> None:
        """One line and its scalars, unbuffered, so that errors of the system are raised here. JSON has no NaN: null."""
        values = {name: value if math.isfinite(value) else None for name, value in entry.items()}
        try:
            if self._file is None:
                self._before_first()
                self._run.mkdir(parents=True, exist_ok=True)
                self._file = _reopen(self._run / FILE, self._step)
                self._events = ScalarEvents(self._run / "tensorboard", self._step + 1)
            line = json.dumps(values).encode() + b"\n"
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._events.write(step, scalars)
        except OSError as error:
            raise of_system(error, self._run) from error


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics log, oldest first, under their present names; None for a value that was NaN.

    Lines that cannot be read are left out, with one warning that names them.

    Raises:
        UserError: the folder holds no metrics log.
    """
    path, former = Path(run) / FILE, Path(run) / FORMER_FILE
    entries = _entries(path if path.exists() or not former.exists() else former)
    return [{_present(name): value for name, value in entry.items()} for _, entry in entries]


def _present(name: str) -> str:
    """The present name of a metric."""
    prefix = next((prefix for prefix in _FORMER_PREFIXES if name.startswith(prefix)), None)
    return name if prefix is None else f"val/{name.removeprefix(prefix)}"


def _entries(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """(line, its values) of every line that is an entry; a warning names those that are not."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise of_system(error, path) from error
    entries, damaged = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = load_json(line.decode("utf-8"), str(path))
            if not isinstance(entry, dict) or type(entry.get("step")) is not int or entry["step"] < 0:
                raise ValueError("no entry")
            entries.append((line, entry))
        except (UserError, ValueError):  # ValueError: not UTF-8
            damaged.append(number)
    if damaged:
        shown = ", ".join(map(str, damaged[:8])) + (", ..." if len(damaged) > 8 else "")
        which = f"line {shown} is" if len(damaged) == 1 else f"lines {shown} are"
        warnings.warn(f"{path}: {which} not an entry of a metrics log and left out; the others are read", stacklevel=3)
    return entries


def _reopen(path: Path, step: int) -> BinaryIO:
    """The metrics log, open for appending, without torn lines and without entries after `step`."""
    former = path.with_name(FORMER_FILE)
    if former.exists() and not path.exists():
        os.replace(former, path)
    if path.exists():
        kept = [line for line, entry in _entries(path) if entry["step"] <= step]
        with replace_file(path) as temporary:
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    return path.open("ab", buffering=0)
