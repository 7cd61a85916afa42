"""Where trained weights lie: in a folder, among what is shipped under a name, or on the hub under an id."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from codec.io.errors import UserError, of_system
from codec.io.shipped import is_shipped_name, names_shipped, shipped

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_hub_id(source: str | Path) -> bool:
    """Whether a text has the form of a hub id, owner/name, and is no mistyped path into a folder that is here."""
    text = str(source)
    formed = _HUB_ID.fullmatch(text) and ".." not in text and "--" not in text and not text.endswith((".", "-"))
    return bool(formed) and not Path(text).parent.is_dir()


def local_folder(
    source: str | Path,
    what: str = "model",
    files: Sequence[str] | None = None,
    option: str = "",
    made_by: str = "",
) -> Path:
    """The folder, else the shipped one of that name, else where the hub's model of that id lies once fetched.

    Args:
        source: Folder, shipped name such as "starter/codec", or hub id, in this order.
        what: "model" or "codec", for messages.
        files: Patterns of the files that are fetched from the hub; None: all.
        option: Of the command line that names a different one, for messages.
        made_by: How one comes about, for messages: "train one with ...".

    Raises:
        UserError: There is none. A mistyped path that has the form of an id is reported as a missing folder too.
    """
    folder = Path(source)
    try:
        if folder.is_dir():
            return folder
        if os.path.lexists(folder):
            raise UserError(f"{source}: is no folder; give the folder of a {what}{option and f' with {option}'}")
    except (OSError, ValueError) as error:  # a name that is too long, a NUL
        detail = error.strerror if isinstance(error, OSError) else "not a name that a folder can have"
        raise UserError(f"{str(source)[:80]!r}: {detail}; give the folder of a {what}") from error
    if place := shipped("assets", source):
        return place
    given = f", with {option}" if option else ""
    if is_shipped_name(source):
        raise UserError(
            f"{source}: no such folder, and this version ships no {what} of that name "
            f"({names_shipped('assets', source)}); give another {what}{given}"
        )
    if not is_hub_id(source):
        raise UserError(
            f"{source}: no such folder; give the folder of a {what}, a hub id such as owner/name, or a name of what is "
            f"shipped ({names_shipped('assets', source)}){given}{f'; or {made_by}' if made_by else ''}"
        )
    from huggingface_hub import snapshot_download  # takes a second, which a folder need not wait for
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    from codec.io.third_party import said

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(files) if files else None))
    except GatedRepoError as error:
        problem = "the hub's model of that id is open only to those whom its owner has let in; ask there for access"
        raise UserError(f"{source}: no such folder, and {problem}, or give another {what}") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{source}: no such folder, and the hub has no model of that id; check the spelling") from error
    except (OSError, ValueError, RuntimeError) as error:  # the hub's own errors are of these kinds
        if isinstance(error, OSError) and error.errno is not None and error.filename:
            raise of_system(error) from error
        detail = said(error)
        raise UserError(
            f"{source}: no such folder, and nothing is available from the hub under that id"
            f"{f' ({detail})' if detail else ''}; give a folder, or go online"
        ) from error
