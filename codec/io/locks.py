"""One writer at a time: a lock on a folder that a process writes to.

The lock is a file `.lock` in the folder that names its holder (process, host, boot) and on which the system keeps a
record lock while the holder lives, so that nothing has to be cleaned after a kill or a reboot.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codec.io.errors import UserError, of_system

try:
    import fcntl
except ImportError:  # Windows: the file names its holder, and nothing tells whether that still lives
    fcntl = None  # type: ignore[assignment]  # a module everywhere else

LOCK_FILE = ".lock"

_held: set[tuple[int, int]] = set()  # (device, inode): the system's record locks do not hold within one process


@contextlib.contextmanager
def locked(folder: str | Path, what: str) -> Iterator[None]:
    """Hold the folder, which is made where it is missing, as its only writer.

    Args:
        what: The use that is made of it, "a training run", for whoever finds it held.

    Raises:
        UserError: Somebody holds it; names the process and the host. A folder that was made here and into which
            nothing was written is removed again.
    """
    folder = Path(folder)
    missing = [parent for parent in (folder, *folder.parents) if not os.path.lexists(parent)]
    path = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, what)
    except OSError as error:
        raise of_system(error, folder) from error
    inode = _inode(handle)
    _held.add(inode)
    try:
        yield
    finally:
        _held.discard(inode)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is still held, so that no new lock is removed
        os.close(handle)
        with contextlib.suppress(OSError):  # not empty
            for made in missing:
                made.rmdir()


def _acquire(path: Path, what: str) -> int:
    """The lock file, open and locked. It names this process from here on."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            holder = _holder(handle)
            if _inode(handle) in _held or not _lock(handle):
                raise _refusal(path, holder or {})
            if not path.exists() or (path.stat().st_dev, path.stat().st_ino) != _inode(handle):
                os.close(handle)  # its holder has just removed it
                continue
            if holder and not _is_gone(holder):
                raise _refusal(path, holder)
            named = {"what": what, "pid": os.getpid(), "host": socket.gethostname(), "boot": _boot()}
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(named).encode(), 0)
            return handle
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(handle)
            raise


def _lock(handle: int) -> bool:
    """Whether this process now has the system's lock on the file: nobody else who lives on this machine has it.

    A record lock, which children do not inherit: a worker that outlives a killed run does not keep its folder.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_gone(holder: dict[str, Any]) -> bool:
    """Whether the process that a lock file names has ended, given that the system's lock could be had.

    That lock speaks for every process of this boot. A file from another host may be seen through a network file
    system that passes no locks on: only a person can tell.
    """
    if fcntl is None:
        return False
    return holder.get("host") == socket.gethostname() or holder.get("boot") == _boot()


def _holder(handle: int) -> dict[str, Any] | None:
    """What a lock file says; {} where it cannot be read, None where it is new."""
    content = os.pread(handle, 4096, 0)
    if not content:
        return None
    try:
        named = json.loads(content)
    except ValueError:  # torn by a kill: nobody is named
        return None
    return named if isinstance(named, dict) else None


def _refusal(path: Path, holder: dict[str, Any]) -> UserError:
    return UserError(
        f"{path.parent}: in use by {holder.get('what', 'another process')}, process {holder.get('pid', 'unknown')} on "
        f"{holder.get('host', 'this host')}; wait until it has ended, or choose another folder (where it certainly no "
        f"longer runs, remove {path})"
    )


def _inode(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _boot() -> str:
    """Names this start of the machine, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()
