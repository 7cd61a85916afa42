"""The one error that is meant for people, and what the system's refusals mean in its words."""

from __future__ import annotations

import errno
from pathlib import Path

# What to do about a refusal of the operating system. Nothing here may cost anybody a file.
_REMEDIES = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file, not a folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "it cannot be written to; choose another place",
    errno.ENOSPC: "make room on the disk, or choose another place",
    errno.EDQUOT: "your share of the disk is used up; make room, or choose another place",
    errno.EFBIG: "files may not grow that large here (ulimit -f, or the file system); choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle; correct them",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk may be failing; copy what is there and choose another place",
    errno.EBUSY: "another program uses it; try again later",
    errno.ENXIO: "it is no file that can be read; write to a file first",
}


class UserError(Exception):
    """Something a person can put right. The message is one sentence: what happened, to which file, what to do.

    The command line prints it without a traceback and exits with status 2.
    """


def of_system(error: OSError, place: str | Path | None = None) -> UserError:
    """A refusal of the operating system as a sentence. place: the file concerned, where the error names none."""
    where = place if place is not None else error.filename2 or error.filename
    said = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno, "try again, or choose another place")
    return UserError(f"{where}: {said}; {remedy}" if where is not None else f"{said}; {remedy}")
