"""What a program shows to people, and how it ends: the one place where errors become a line and an exit status."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from codec.errors import UserError, of_system

# Control characters (C0, DEL, C1), marks that turn the direction of text, and halves of surrogate pairs, which stand
# for bytes of a file name that are not UTF-8. A line break and a tab are harmless.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text that does nothing to a terminal but show: control characters are written as escapes."""
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), str(text))


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


def run_program(name: str, function: Callable[[], int | None]) -> None:
    """Run a program's `function` and leave with its exit status; `name` begins every message.

    0 done (and where the reader of the output has gone), 1 a check failed, 2 unusable input, memory or disk (one line
    says why), 130 Ctrl-C. With UNIAUDIO_TRACEBACK=1 in the environment, errors show where they came from.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name of any script can be shown on any terminal
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_: f"{name}: {printable(message)}\n"
    try:
        status = function() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _fail(name, "stopped", 130)
    except BrokenPipeError:
        status = 0
    except UserError as error:
        status = _fail(name, error, 2)
    except OSError as error:
        status = _fail(name, of_system(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        status = _fail(name, "there is not enough memory for this; give less at once, or use a larger machine", 2)
    _forget_closed_pipe()
    sys.exit(status)


def _fail(name: str, message: object, status: int) -> int:
    if os.environ.get("UNIAUDIO_TRACEBACK"):
        raise  # noqa: PLE0704 (called while an error is handled)
    try:
        print(f"{name}: {printable(message)}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        pass  # nobody reads this either
    return status


def is_out_of_memory(error: BaseException) -> bool:
    """torch says so in errors of its own, which are not imported for this."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )  # fmt: skip


def _forget_closed_pipe() -> None:
    """Keep Python from complaining, while it ends, that the reader of its output (head, less) has gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
