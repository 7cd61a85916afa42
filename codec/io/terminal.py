"""What a program shows to people, and how it ends: the one place where errors become a line and an exit status."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from codec.io.errors import UserError, of_system, refusal_in

# Control characters (C0, DEL, C1), marks that turn the direction of text, and halves of surrogate pairs, which stand
# for bytes of a file name that are not UTF-8. A line break and a tab are harmless.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")

LONGEST = 8_000  # characters of a message


def printable(text: object) -> str:
    """Text that does nothing to a terminal but show: control characters are written as escapes."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), str(text))


def one_line(text: object) -> str:
    """Printable text without line breaks and tabs: a name of any script stays one field of one line."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def shown(value: Any, longest: int = 80) -> str:
    """A value for a message: as Python writes it, without control characters, and no longer than `longest`."""
    if isinstance(value, str | bytes) and len(value) > longest:
        value = value[:longest]  # before it is written out: it may be the whole of a file
    try:
        text = printable(repr(value))
    except (ValueError, RecursionError):  # a number of very many digits, a very deep list
        return f"a very long {type(value).__name__}"
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def say(text: object) -> None:
    """Print one line of result, free of control characters, at once."""
    print(printable(text), flush=True)


def complain(message: object, name: str = "uniaudio") -> None:
    """One line on standard error that begins with the program's name, after whatever was printed before it.

    Further lines of the message are indented, so that no name of a file can pass for a line of the program. A very long
    one loses its middle: its end says what to do.
    """
    text = str(message)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    text = printable(text).replace("\n", "\n  ")
    with contextlib.suppress(OSError, ValueError):  # nobody reads any more
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f"{name}: {text}", file=sys.stderr, flush=True)


def sentence_of(error: BaseException) -> UserError | None:
    """What a person reads about an error that is no fault of the program; None for one that is."""
    if isinstance(error, UserError):
        return error
    if is_out_of_memory(error):
        return UserError("there is not enough memory for this; give less at once, or use a larger machine")
    if isinstance(error, OSError):
        unnamed = error.filename is None and not _can_be_written(sys.stdout)
        return of_system(error, "standard output" if unnamed else None)
    refusal = refusal_in(error) if isinstance(error, Exception) else None  # that a library tells in words
    return None if refusal is None else of_system(refusal)


def run_program(name: str, function: Callable[[], int | None]) -> None:
    """Run a program's `function` and leave with its exit status; `name` begins every message.

    0 done (and where the reader of the output has gone), 1 a check failed, 2 unusable input, memory or disk (one line
    says why), 130 Ctrl-C, 143 asked to end. With UNIAUDIO_TRACEBACK=1 in the environment, errors show where they came
    from.
    """
    _open_streams()
    warnings.formatwarning = lambda message, *_: f"{name}: {one_line(str(message)[:LONGEST])}\n"
    try:
        with _termination_noticed():
            status = function() or 0
    except BaseException as error:
        explained = _explained(error)
        if explained is None or (os.environ.get("UNIAUDIO_TRACEBACK") and not isinstance(error, SystemExit)):
            raise
        status, message = explained
        if message:
            complain(message, name)
    refused = _flushed(sys.stdout)
    if isinstance(refused, OSError) and not isinstance(refused, BrokenPipeError):
        complain(of_system(refused, "standard output"), name)
        status = status or 2
    _flushed(sys.stderr)
    sys.exit(status)


class _Terminated(BaseException):
    """The signal that asks a process to end: what is open is closed, and nothing half written stays."""


def _explained(error: BaseException) -> tuple[int, object] | None:
    """Exit status and message of an error; None for one that is a fault of the program."""
    if isinstance(error, BaseExceptionGroup):
        found = [_explained(part) for part in error.exceptions]
        explained = [pair for pair in found if pair is not None]
        return max(explained, key=lambda pair: pair[0]) if len(explained) == len(found) else None
    if isinstance(error, SystemExit):
        return (error.code or 0, None) if isinstance(error.code, int | None) else (1, error.code)
    if isinstance(error, KeyboardInterrupt):
        return 130, "stopped"
    if isinstance(error, _Terminated):
        return 143, "stopped, as it was asked to"
    if isinstance(error, BrokenPipeError) and not _can_be_written(sys.stdout):
        return 0, None  # whoever read the output has read enough
    sentence = sentence_of(error)
    return None if sentence is None else (2, sentence)


def _open_streams() -> None:
    """Give every standard stream a place, and any text a form in which it can be shown.

    Where a stream is closed from the start, the next file that is opened would get its number, and what a library
    prints would be written into that file.
    """
    for number in range(3):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name of any script can be shown on any terminal
            stream.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _termination_noticed() -> Iterator[None]:
    """Turn the signals that ask a process to end into an error, where nobody has decided otherwise (as nohup does)."""
    owner, previous = os.getpid(), {}

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second time it ends at once
        if os.getpid() != owner:  # a fork, which ends as it would without this
            os.kill(os.getpid(), number)
        raise _Terminated

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) == signal.SIG_DFL:
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def is_out_of_memory(error: BaseException) -> bool:
    """torch says so in errors of its own, which are not imported for this."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _OUT_OF_MEMORY)


def _can_be_written(stream: TextIO) -> bool:
    """Whether what is waiting to be written to a stream can be.

    Python drops what it could not write once it has said so; only the system still knows that nobody reads.
    """
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    try:
        poller = select.poll()
        poller.register(stream.fileno(), select.POLLOUT)
        return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))
    except (OSError, ValueError, AttributeError):  # no file of the system's, or a system that cannot be asked
        return True


def _flushed(stream: TextIO) -> OSError | ValueError | None:
    """Write what waits; what the system says where that cannot be done.

    Then what waits is dropped, or Python would try again, and complain, while it ends.
    """
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
