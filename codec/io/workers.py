"""Processes that do a part of another's work: they end with it, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

_POLL_SECONDS = 0.2


def die_with_parent(parent: int) -> None:
    """For a worker to call first: leave Ctrl-C to the parent, and end as soon as that has ended, even by SIGKILL.

    Args:
        parent: Its process id, `os.getpid()` where the worker is started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    when_parent_ends(parent, lambda: os._exit(1))  # nobody is left to read an error


def when_parent_ends(parent: int, action: Callable[[], None]) -> None:
    """Have a thread call `action` once the process that started this one has ended; a second call changes nothing.

    The thread polls, instead of asking the system for a signal (PR_SET_PDEATHSIG): that is sent when the thread ends
    which started the worker, though the process runs on, and exists on Linux only.

    Args:
        parent: Its process id.
        action: Ends this process.
    """

    def poll() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        action()

    name = f"waits for process {parent} to end"
    if not any(thread.name == name for thread in threading.enumerate()):
        threading.Thread(target=poll, name=name, daemon=True).start()
