"""Processes that do a part of another's work: they end with it, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time

_LOOK_SECONDS = 0.2


def die_with_parent(parent: int) -> None:
    """For a worker to call first: leave Ctrl-C to the parent, and end as soon as that has ended, even by SIGKILL.

    parent: its process id, `os.getpid()` where the worker is started

    A thread looks, instead of asking the system for a signal (PR_SET_PDEATHSIG): that is sent when the thread ends
    which started the worker, though the process goes on, and exists on Linux only.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), name="die with parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)  # nobody is left to hear of an error
