"""The one error that is meant for people, and what the system's refusals mean in its words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

# What to do about a refusal of the operating system. Nothing here may cost anybody a file.
_REMEDIES: dict[int | None, str] = {  # by errno, which not every error has
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


def of_system(error: OSError, path: str | Path | None = None) -> UserError:
    """A refusal of the operating system as a sentence. path: the file concerned, where the error names none."""
    where = path if path is not None else error.filename2 or error.filename
    text = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno, "try again, or choose another place")
    if text.startswith("Could not load this library"):  # torch, of another package's compiled part
        remedy = "it was built for another torch; run `uniaudio doctor --fix`"
    return UserError(f"{where}: {text}; {remedy}" if where is not None else f"{text}; {remedy}")


def refusal_in(error: Exception) -> OSError | None:
    """The refusal of the operating system that an error is, or hides: safetensors, torch and shutil tell it in words.

    None where it is something else.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    text = str(error)
    if found := re.search(r"\(os error (\d+)\)|\[Errno (\d+)\]", text):
        number = int(found[1] or found[2])
        return OSError(number, os.strerror(number))
    if "PytorchStreamWriter failed" in text:  # it does not say what
        return OSError(None, "it could not be written whole")
    return None


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Whatever library writes inside: a refusal of the system is raised as a UserError that names `path`."""
    try:
        yield
    except Exception as error:
        refusal = None if isinstance(error, UserError) else refusal_in(error)
        if refusal is None:
            raise
        raise of_system(refusal, path) from error
