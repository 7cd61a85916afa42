"""The journal of a run: JSON lines and TensorBoard scalars; a progress bar or plain lines on the console."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from training import processes

FILE = "journal.jsonl"


class Journal:
    """Writes RUN/journal.jsonl and RUN/tensorboard. Only the first process writes; all must call `write`.

    step: where the run goes on; entries after it, left by a run that was killed, are dropped, so that the journal
        tells one story.
    """

    def __init__(self, run: Path, name: str, steps: int, step: int = 0) -> None:
        self._counts: dict[str, float] = {}
        self._since = time.perf_counter()
        self._first = processes.rank() == 0
        if not self._first:
            return
        self._steps = steps
        self._file = _reopen(run / FILE, step)
        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
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
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        for name, value in (dict(values) | rates).items():
            self._events.add_scalar(name, value, step)
        note = "  ".join(f"{name} {value:.4g}" for name, value in (dict(values) | rates).items())
        self._progress.update(self._task, completed=step, note=note)
        if not self._console.is_terminal:
            self.say(f"{self._name} {step}/{self._steps}  {note}")

    def advance(self, step: int) -> None:
        """Move the progress bar."""
        if self._first:
            self._progress.update(self._task, completed=step)

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if self._first:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        if self._first:
            self._progress.stop()
            self._events.close()
            self._file.close()


def read_journal(run: str | Path) -> list[dict[str, float]]:
    """The entries of a run's journal, oldest first."""
    with (Path(run) / FILE).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _reopen(path: Path, step: int) -> TextIO:
    """The journal, open for appending, without torn lines and without entries after `step`."""
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by a kill in the middle of the line
            if entry["step"] <= step:
                kept.append(line + "\n")
        fresh = path.with_suffix(".partial")
        fresh.write_text("".join(kept), encoding="utf-8")
        os.replace(fresh, path)
    return path.open("a", encoding="utf-8")
