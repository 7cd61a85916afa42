"""What is shipped: recipes, and the starter's trained weights, each under a name that holds in any folder.

In a checkout they lie at its top, in `recipes/` and `assets/`; in an installed package inside `uniaudio`. A path that
exists always comes first, so a file of somebody's own is never hidden by a name.
"""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path, PurePosixPath
from typing import Literal

from codec.io.strict import nearest

Kind = Literal["recipes", "assets"]

STARTER_MODEL, STARTER_CODEC = "starter/model", "starter/codec"
_ASSETS = (STARTER_MODEL, STARTER_CODEC, "starter/text_model")
_PLACES = {STARTER_CODEC: "starter/model/audio_tokenizer"}  # name -> place under assets/, where it is another
_FORMER = "recipes/"  # where weights lay before, and what people type who know a checkout: a prefix that is ignored
_COMPLETE = "config.json"  # without it a folder of weights is not there


def shipped(kind: Kind, name: str | Path) -> Path | None:
    """Where something shipped lies.

    Args:
        kind: "recipes", or "assets" for trained weights.
        name: Such as "starter/stage1" (".yaml" may be written), "starter/codec", or a file within:
            "starter/codec/audio_llm.safetensors". The paths of a checkout, "recipes/starter/...", are names too.

    Returns:
        The file or folder, None where nothing of that name is shipped.
    """
    text = PurePosixPath(str(name)).as_posix().removeprefix(_FORMER)
    if text.startswith("/") or not set(text.split("/")).isdisjoint(("..", ".", "")) or "\0" in text:
        return None
    if kind == "recipes":
        path = _root(kind) / f"{text.removesuffix('.yaml')}.yaml"
        return path if path.is_file() else None
    for known, place in _PLACES.items():
        if text == known or text.startswith(f"{known}/"):
            text = place + text.removeprefix(known)
    path = _root(kind) / text
    return path if path.is_file() or (path / _COMPLETE).is_file() else None


def shipped_names(kind: Kind) -> list[str]:
    """The names of all recipes, or of all trained weights, that are shipped."""
    if kind == "assets":
        return [name for name in _ASSETS if shipped(kind, name)]
    return sorted(path.relative_to(_root(kind)).with_suffix("").as_posix() for path in _root(kind).rglob("*.yaml"))


def located(source: str | Path) -> Path:
    """The path itself where something is there, else the shipped weights of that name, else the path as it is."""
    try:
        there = os.path.lexists(source)
    except ValueError:  # a NUL in it
        there = True
    return Path(source) if there else shipped("assets", source) or Path(source)


def is_shipped_name(name: str | Path) -> bool:
    """Whether a name is, or was probably meant as, one of something shipped, rather than a path or a hub id."""
    text = str(name).removeprefix(_FORMER)
    return text in _ASSETS or text.split("/")[0] in {known.split("/")[0] for known in _ASSETS}


def names_shipped(kind: Kind, name: str | Path) -> str:
    """What is shipped and which of it was probably meant, as the end of a sentence."""
    names, text = shipped_names(kind), str(name).removeprefix(_FORMER).removesuffix(".yaml")
    meant = "" if text in _ASSETS else nearest(text, names)
    if kind == "recipes":
        return f"`uniaudio recipe list` lists those that are shipped{meant}"
    return f"shipped: {', '.join(names) or 'none'}{meant}"


def _root(kind: Kind) -> Path:
    package = Path(str(importlib.resources.files("uniaudio")))
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind
