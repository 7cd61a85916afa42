"""Training runs in processes of their own, so that tests can kill them; forked from a server that has imported all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.factories.stages", "tests.factories.trainer"])


def start(target: Callable[..., Any], *arguments: Any, world: int = 1, out: Path | None = None) -> list:
    """Start `target(*arguments)` in `world` processes that know of each other as a launcher's would.

    out: folder for what they print, one file each; None: nowhere.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        environment = {} if world == 1 else _launcher(rank, world, port)
        log = os.devnull if out is None else str(out / f"rank{rank}.txt")
        children.append(_context.Process(target=_child, args=(target, arguments, environment, log)))
        children[-1].start()
    return children


def finish(children: list, timeout: float = 120) -> list[int]:
    """Wait, and return the exit codes."""
    for child in children:
        child.join(timeout)
        if child.is_alive():
            child.kill()
    return [child.exitcode for child in children]


def run(target: Callable[..., Any], *arguments: Any, world: int = 1, out: Path | None = None) -> list[int]:
    return finish(start(target, *arguments, world=world, out=out))


def die() -> None:
    """kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)


def _launcher(rank: int, world: int, port: int) -> dict[str, str]:
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in values.items()}


def _child(target: Callable[..., Any], arguments: tuple, environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        target(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
