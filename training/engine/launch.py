"""Several processes of one training run on this machine, started and stopped together.

As torchrun on one machine, but it ends as one program: Ctrl-C reaches every process once, all save, and the exit status
is theirs, without a traceback. For several machines there are torchrun and DeepSpeed's launcher.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence

from codec.io.errors import UserError
from codec.io.workers import when_parent_ends

_PATIENCE = 30.0  # seconds for the others to end by themselves once one has failed, or after a second signal


def launch(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes of one group.

    Returns:
        Their exit status: that of a process that failed; 128 + the number of the signal that stopped them all.

    Raises:
        UserError: a launcher has started this process already.
    """
    if "MASTER_ADDR" in os.environ:
        raise UserError("--processes: a launcher has started this process already; leave it out")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children: list[subprocess.Popen] = []
    with _passed_on(children) as signals:
        for rank in range(count):
            names = common | {"RANK": rank, "LOCAL_RANK": rank}
            environment = {"OMP_NUM_THREADS": "1"} | os.environ | {name: str(value) for name, value in names.items()}
            # In a group of their own, so that a terminal's Ctrl-C comes to them through this process alone, once.
            children.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, process_group=0))
            if signals:
                children[-1].send_signal(signals[-1])  # came in between
        failed = _wait(children, signals)
    if failed is None:
        return 128 + signals[0] if signals else 0
    return failed if failed > 0 else 128 - failed


def end_with_launcher() -> None:
    """For a launched process to call before all else: it ends, as after SIGTERM, when its launcher has ended.

    A launcher that is killed sends no signal; a thread polls for its process.
    """
    when_parent_ends(os.getppid(), lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextlib.contextmanager
def _passed_on(children: Sequence[subprocess.Popen]) -> Iterator[list[int]]:
    """The signals that came so far; each is sent on to the children."""
    signals: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        signals.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: Sequence[subprocess.Popen], signals: Sequence[int]) -> int | None:
    """Wait for all. Returns the status of the first that failed by itself, None where none did.

    Where one fails, the others, which wait for it in vain, end too: by themselves or, after some patience, at once.
    """
    failed, deadline = None, None
    while True:
        codes = [child.poll() for child in children]  # of all: each is asked, also behind one that still runs
        stopped = [code for number in signals for code in (128 + number, -number)]
        if failed is None:
            failed = next((code for code in codes if code and code not in stopped), None)
        if None not in codes:
            return failed
        if deadline is None and (failed is not None or len(signals) > 1):
            deadline = time.monotonic() + _PATIENCE
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(0.05)
