"""Files of people: how every result is written, and what is never written over.

A result appears whole or not at all: it is written beside its place, flushed to the disk and renamed. `new_file` and
`new_folder` refuse to replace what is there; `replace_file` is for files that the program itself owns.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from codec.io.errors import UserError, of_system

_SCRATCH = ".tmp-"  # how names of files that are not finished begin
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_HASHED = re.compile(r".*-[0-9a-f]{12}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # no names for files on Windows


def require_free(path: str | Path, *, force: bool = False, inputs: Iterable[str | Path] = ()) -> None:
    """Raise UserError where a result may not be written to `path`; to be asked before the work begins.

    Args:
        inputs: Files that the result is made of, which it never replaces, not even with `force` or through a link.
        force: Replace a file that is there.
    """
    path = Path(path)
    if "\0" in str(path):
        raise UserError(f"{str(path)!r}: not a name that a file can have; choose another one")
    try:
        _require_free(path, force, inputs)
    except OSError as error:
        raise of_system(error, path) from error


def _require_free(path: Path, force: bool, inputs: Iterable[str | Path]) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file to write")
    if os.path.lexists(path):
        for given in inputs:
            if os.path.exists(path) and os.path.exists(given) and os.path.samefile(path, given):
                raise UserError(f"{path}: is what is read, and is not written over; give another name with --out")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no ordinary file; give the name of a file to write")
        if not force:
            raise UserError(f"{path}: exists already and is not replaced; give another name, or --force to replace it")
    parent = path.parent
    while not os.path.lexists(parent) and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{path}: {parent} is not a folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: {parent} may not be written to; change its permissions, or choose another place")


def next_free(path: str | Path) -> Path:
    """`path`, or where something is there the first of name-2, name-3, ... that is free: for names nobody chose."""
    path, number = Path(path), 1
    free = path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


@contextlib.contextmanager
def new_file(path: str | Path, *, force: bool = False, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """A temporary path, which becomes `path` when what is written there is whole. Missing folders are made.

    Raises UserError as `require_free` does, and for what the system refuses; nothing is left then.
    """
    inputs = list(inputs)
    require_free(path, force=force, inputs=inputs)
    with _beside(Path(path), replace=force) as temporary:
        yield temporary
        require_free(path, force=force, inputs=inputs)  # somebody else may have written meanwhile


@contextlib.contextmanager
def replace_file(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """As `new_file`, for files that the program owns: what is there is replaced, and its permissions are kept.

    Args:
        durable: Not to lose it with the machine's power. Left out, which is faster for many small files, only where
            whoever uses the file sees from its content whether it is whole.
    """
    with _beside(Path(path), replace=True, durable=durable) as temporary:
        yield temporary


@contextlib.contextmanager
def _beside(path: Path, replace: bool, durable: bool = True) -> Iterator[Path]:
    """A temporary path that becomes `path`; without `replace`, only where nothing has come to be there meanwhile."""
    temporary = path.with_name(f"{_SCRATCH}{os.getpid()}-{uuid.uuid4().hex[:8]}{path.suffix[-16:]}")
    missing = [parent for parent in path.parents if not os.path.lexists(parent)]  # the deepest first
    done = False
    try:
        if path.exists() and not path.is_file():  # the system lets root rename over a device
            raise UserError(f"{path}: is no ordinary file, and is not replaced; give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = (path if path.is_file() else temporary).stat().st_mode & 0o7777
        yield temporary
        if durable:
            flush(temporary)  # before the mode, which may forbid to open it
        if temporary.stat().st_mode & 0o7777 != mode:
            temporary.chmod(mode)
        _place(temporary, path, replace)
        done = True
        if durable:
            with contextlib.suppress(OSError):  # the file is in its place; some file systems flush no folders
                flush(path.parent)
    except OSError as error:  # of this file, unless it names another one
        named = isinstance(error.filename, str | bytes)
        named = named and Path(os.fsdecode(error.filename)) not in (temporary, path.parent)
        raise of_system(error, None if named else path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not done:
            for parent in missing:
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _place(temporary: Path, path: Path, replace: bool) -> None:
    """Give a finished file its name: in one step that fails where there is one already, unless `replace`."""
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        raise UserError(f"{path}: has come to exist meanwhile and is not replaced; give another name") from error
    except OSError:  # a file system without hard links
        temporary.replace(path)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file that the program owns, whole or not at all, in UTF-8."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def require_no_folder(path: str | Path) -> None:
    """Raise UserError where `new_folder` would refuse: something is at `path`. To be asked before the work begins."""
    if os.path.lexists(path):
        raise UserError(f"{path}: exists already and is not replaced; give another name, or remove it")


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write into, which becomes `path` when all is written; where something fails, nothing is left.

    Raises:
        UserError: Something is at `path`: a folder is never written over.
    """
    path = Path(path)
    require_no_folder(path)
    scratch = path.with_name(f"{_SCRATCH}{os.getpid()}-{uuid.uuid4().hex[:8]}")
    missing = [parent for parent in path.parents if not os.path.lexists(parent)]
    done = False
    try:
        scratch.mkdir(parents=True)
        yield scratch
        for written in [*scratch.rglob("*"), scratch]:
            flush(written)
        scratch.rename(path)
        done = True
        with contextlib.suppress(OSError):
            flush(path.parent)
    except OSError as error:
        raise of_system(error, path) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in missing if not done else ():
            with contextlib.suppress(OSError):
                parent.rmdir()


def remove_leftovers(folder: str | Path) -> None:
    """Remove what a killed process left half written in a folder; for the folder's only writer (codec/io/locks.py)."""
    for left in Path(folder).glob(f"{_SCRATCH}*"):
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file, or a folder's list of files, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name_of(identity: str) -> str:
    """A file name for an id: one name in any folder and on any disk, and another one for every other id.

    A plain id is its own name. Any other is what is legible of it and a hash, so that neither separators, capitals,
    length nor leading dots can lead elsewhere or to another id's file.
    """
    if _PLAIN.fullmatch(identity) and not _HASHED.fullmatch(identity) and not _RESERVED.fullmatch(identity):
        if not identity.endswith("."):
            return identity
    legible = re.sub(r"[^a-z0-9_-]+", "_", identity.lower())[:80].strip("_-") or "id"
    return f"{legible}-{hashlib.sha256(identity.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def inside(folder: str | Path, name: str) -> Path:
    """The path of a name within a folder. Raises UserError where the name leads out of it, or to the folder itself."""
    folder = Path(folder)
    path = folder / name
    try:
        there, home = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise UserError(f"{name!r}: is no name within the folder {folder}; use a plain name") from error
    if Path(name).is_absolute() or there == home or not there.is_relative_to(home):
        raise UserError(f"{name!r}: leads out of the folder {folder}; use a plain name")
    return path
