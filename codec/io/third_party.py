"""What libraries raise while they read somebody's files, said in our words, at the place where it enters."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from codec.io.errors import UserError, of_system
from codec.io.terminal import is_out_of_memory, printable

# What transformers, tokenizers, sentencepiece, peft, safetensors and torch raise for a file that they cannot use.
RAISED = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    UnpicklingError,
)
# Advice that costs people something: to run code that came with a file, to read it unsafely, to go on with weights that
# do not fit, to log in or to install.
_ADVICE = re.compile(
    r"trust_remote_code|weights_only|ignore_mismatched|from_tf|from_flax|force_download|low_cpu_mem|pip3? install"
    r"|safe_globals|allowlist|strict=False|login|https?://",
    re.IGNORECASE,
)
_LONGEST = 200


@contextlib.contextmanager
def third_party_errors(place: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turn what a library raises inside the block into a UserError: "PLACE: WHAT (what the library said); REMEDY".

    A refusal of the operating system keeps its own words and remedy: nobody is told to replace a file for want of
    permission. What lacks memory is passed on.
    """
    try:
        yield
    except RAISED as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            raise of_system(error, None if error.filename else place) from error
        raise UserError(_sentence(place, what, error, remedy)) from error
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library raises this very type
            raise
        raise UserError(_sentence(place, what, error, remedy)) from error


def said(error: BaseException) -> str:
    """What a library says, on one line, without advice that harms and at a readable length; "" where nothing is left"""
    parts = re.split(r"(?<=[.!?])\s+|\n+", printable(error))
    kept = " ".join(" ".join(part.split()) for part in parts if part.strip() and not _ADVICE.search(part)).rstrip(".")
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 4]} ..."


def _sentence(place: str | Path, what: str, error: BaseException, remedy: str) -> str:
    detail = said(error)
    return f"{place}: {what} ({detail}); {remedy}" if detail else f"{place}: {what}; {remedy}"
