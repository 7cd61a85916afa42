"""Trials: the command line run on bad input, in a process of its own, and what must be true of how it ends."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LONGEST = 30.0  # seconds that an answer may take
_STATUSES = (0, 2)


@dataclass(frozen=True)
class Result:
    """How a command ended; status None: it did not within LONGEST."""

    status: int | None
    out: str
    err: str


@dataclass
class Trial:
    """One command line and what it may do.

    what: the damage, for the message
    arguments: of `uniaudio`; or `action`, a function to run in its place
    must_fail: the input means nothing: a success without a word about it is wrong
    precious: files that must stay what they are
    absent: paths that must not be there where the command fails
    check: what else is wrong with a result, "" for nothing
    """

    what: str
    arguments: list[str] = field(default_factory=list)
    action: Callable[[], int | None] | None = None
    typed: bytes = b""
    must_fail: bool = False
    precious: tuple[Path, ...] = ()
    absent: tuple[Path, ...] = ()
    check: Callable[[Result], str] = lambda result: ""


def fault_of(trial: Trial, scratch: Path) -> str:
    """What went wrong in a trial, "" where nothing did. scratch: a folder for its output."""
    before = {path: _content(path) for path in trial.precious}
    result = run(trial, scratch)
    last = (result.err.strip().splitlines() or [""])[-1]
    if result.status is None:
        return f"no end within {LONGEST:.0f} s"
    if "Traceback" in result.err or "Traceback" in result.out:
        return f"a traceback: {last}"
    if result.status not in _STATUSES:
        return f"exit status {result.status}: {last}"
    if result.status == 2 and len(last) < 10:
        return "failed without a sentence"
    if len(result.err) > 20_000:
        return f"a message of {len(result.err)} characters"
    if any(ord(c) < 32 and c not in "\n\t\r" for c in result.err + result.out):
        return "control characters in what is printed"
    if trial.must_fail and result.status == 0 and not result.err.strip():
        return "succeeded without a word"
    for path, content in before.items():
        if _content(path) != content:
            return f"{path.name} was changed"
    for path in trial.absent:
        if result.status and os.path.lexists(path):
            return f"failed, and left {path.name} behind"
    return trial.check(result)


def run(trial: Trial, scratch: Path) -> Result:
    """Fork, so that what is imported need not be imported again, and answer with what was printed."""
    out, err, given = scratch / "out", scratch / "err", scratch / "in"
    given.write_bytes(trial.typed)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be_the_program(trial, out, err, given)
    began = time.monotonic()
    while time.monotonic() - began < LONGEST:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Result(os.waitstatus_to_exitcode(status), *(p.read_text("utf-8", "replace") for p in (out, err)))
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Result(None, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"))


def _be_the_program(trial: Trial, out: Path, err: Path, given: Path) -> None:
    """In the child: never returns."""
    os.setpgid(0, 0)
    os.chdir(given.parent)  # where a name without a folder leads
    for number, path, flags in (
        (0, given, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    status = 1
    try:
        from cli.main import main
        from codec.io.terminal import run_program

        if trial.action is not None:
            run_program("uniaudio", trial.action)
        sys.argv = ["uniaudio", *trial.arguments]
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
