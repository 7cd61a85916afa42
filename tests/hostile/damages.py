"""Damages: what happens to files, and values that are not what was meant."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

WRONG_VALUES: tuple[Any, ...] = (
    None, "many", "", [], [1, 2], {}, {"a": 1}, True, -1, 0, 1.5, -0.5, 2**70, 10**30, float("nan"),
    float("inf"), "\x1b[2J",
)  # fmt: skip
WRONG_NUMBERS = ("nan", "inf", "-inf", "1e999", str(2**64), "-1", "x", "", "1_0_", "0x10", "1,5", "٣", "--")


def cut(content: bytes, rng: Random) -> bytes:
    """Less than the whole, at any place or at one that programs write up to."""
    end = rng.choice([rng.randrange(len(content)), len(content) // 2, len(content) - 1, min(len(content) - 1, 4096)])
    return content[:end]


def flip(content: bytes, rng: Random, first: int = 0, last: int | None = None) -> bytes:
    """One bit of a byte in [first, last) turned."""
    made = bytearray(content)
    at = rng.randrange(first, min(last or len(made), len(made)))
    made[at] ^= 1 << rng.randrange(8)
    return bytes(made)


def garble(content: bytes, rng: Random) -> bytes:
    """Any of the ways in which files get damaged."""
    kind = rng.randrange(8)
    if kind == 0:
        return cut(content, rng)
    if kind == 1:
        return flip(content, rng)
    if kind == 2:
        return flip(content, rng, 0, 64)
    if kind == 3:
        return b""
    if kind == 4:
        return rng.randbytes(rng.choice([1, 100, 5000]))
    if kind == 5:  # the end never reached the disk
        end = rng.randrange(len(content))
        return content[:end] + bytes(len(content) - end)
    if kind == 6:  # an error page saved under the file's name
        return b"<!doctype html><html><body>404 Not Found</body></html>\n"
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def places(tree: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of all values in a tree of dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def with_value(tree: Any, path: tuple, value: Any) -> Any:
    """A copy of the tree with another value at one place."""
    tree = copy.deepcopy(tree)
    at = tree
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return tree


def damaged_json(path: Path, rng: Random) -> str:
    """Damage one value of a JSON file, or its text; says what was done."""
    text = path.read_text(encoding="utf-8")
    tree = json.loads(text)
    found = list(places(tree))
    if rng.random() < 0.25 or not found:
        path.write_bytes(garble(text.encode(), rng))
        return f"{path.name} garbled"
    place, value = rng.choice(found), rng.choice(WRONG_VALUES)
    path.write_text(json.dumps(with_value(tree, place, value)), encoding="utf-8")
    return f"{path.name} with {'.'.join(map(str, place))} = {value!r}"


def same_json(path: Path, other: Path) -> bool:
    """Whether two files hold the same JSON, however it is written; the second one is whole."""
    try:
        return json.loads(path.read_bytes()) == json.loads(other.read_bytes())
    except ValueError:
        return False
