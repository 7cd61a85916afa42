"""How far an evaluation is: a line for what is done, and a bar, or a line now and then, within what takes long."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

from codec.io.terminal import say

CHUNK = 32  # requests between two writes of the cache: what a kill can cost
PATIENCE = 30.0  # seconds between two lines where there is no terminal to draw a bar on

T = TypeVar("T")


def _one(thing: object) -> int:
    return 1


class Progress:
    """Lines about the progress; nobody has to read them: the results are in files."""

    def __init__(self, quiet: bool = False) -> None:
        """Say nothing yet.

        Args:
            quiet: Never say anything.
        """
        self._quiet, self._counting = quiet, False

    def say(self, line: str) -> None:
        """One line; none where nobody reads any more."""
        if not self._quiet:
            try:
                say(line)
            except BrokenPipeError:
                self._quiet = True

    def counted(self, things: Iterable[T], total: int, what: str, size: Callable[[T], int] = _one) -> Iterator[T]:
        """The same things, while a person sees how many of them are done.

        Args:
            things: Each takes a while to come.
            total: Their number.
            what: A word or two for what is done to them.
            size: How many one of them counts for.
        """
        if self._quiet or self._counting:  # within something that is counted already
            yield from things
            return
        self._counting = True
        try:
            show = self._bar if sys.stderr.isatty() else self._lines
            yield from show(things, total, what, size)
        finally:
            self._counting = False

    def _bar(self, things: Iterable[T], total: int, what: str, size: Callable[[T], int]) -> Iterator[T]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("      {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            for thing in things:
                yield thing
                bar.advance(task, size(thing))

    def _lines(self, things: Iterable[T], total: int, what: str, size: Callable[[T], int]) -> Iterator[T]:
        said, done = time.monotonic(), 0
        for thing in things:
            yield thing
            done += size(thing)
            if time.monotonic() - said > PATIENCE and done < total:
                said = time.monotonic()
                self.say(f"      {what} {done}/{total}")


_SILENT = Progress(quiet=True)
# Of the evaluation that runs: what takes long lies deep within, where nothing else is to be said.
_running: ContextVar[Progress] = ContextVar("progress of the evaluation", default=_SILENT)


@contextlib.contextmanager
def running(progress: Progress) -> Iterator[None]:
    """Within it, `counted` tells this one."""
    token = _running.set(progress)
    try:
        yield
    finally:
        _running.reset(token)


def counted(things: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same things, counted for the person who watches the evaluation, if one does (`Progress.counted`)."""
    return _running.get().counted(things, total, what)


def chunks(things: Sequence[T], what: str) -> Iterator[Sequence[T]]:
    """The same things, CHUNK of them at a time, counted one by one."""
    made = (things[start : start + CHUNK] for start in range(0, len(things), CHUNK))
    return _running.get().counted(made, len(things), what, len)
