"""Processes that work for another one, and do not outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the system end this process, as SIGTERM would, when the one that started it has ended, however that ended.

    Linux alone knows how; elsewhere nothing happens. A parent that has gone already is noticed by the change of parent
    during the call alone: call it first of all.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
