"""What can be said of a dataclass that `codec.io.strict.parse` reads: its keys, their types, defaults and help.

Help is the comment of a field in the source, so that what a reader of the code sees and what the command line prints
are one text.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from codec.io.numbers import ANY, LARGEST, Range
from codec.io.strict import type_hints_of


@dataclasses.dataclass(frozen=True)
class Key:
    """What can be said of one key that `parse` reads."""

    name: str  # dotted, where it lies in a group
    kind: str  # type and range, in words
    default: str  # as it would be written in YAML; "" where there is none and the key must be given
    help: str  # the field's comment, or what the class's docstring says of it


def keys_of(cls: type, group: str = "", default: Any = None) -> Iterator[Key]:
    """Every key that `parse` reads into a dataclass, in order; those of nested dataclasses are dotted.

    Where a list or a table of dataclasses is meant ("experts[].role"), or one that may be null, the key itself comes
    before those of its group.

    Args:
        cls: The dataclass.
        group: Key that it lies under; "": none.
        default: An instance, whose values are the defaults rather than those of the class.
    """
    comments, hints = field_comments(cls), type_hints_of(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        name, kind = f"{group}.{field.name}" if group else field.name, hints[field.name]
        value = _default_of(field) if default is None else getattr(default, field.name)
        member, several = _dataclass_in(kind)
        if kind is not member:
            written = "" if value is dataclasses.MISSING else _in_yaml(value)
            yield Key(name, _kind_in_words(kind), written, comments.get(field.name, ""))
        if member is not None:
            of_group = value if isinstance(value, member) else None
            yield from keys_of(member, f"{name}[]" if several else name, of_group)


@functools.cache
def field_comments(cls: type) -> dict[str, str]:
    """Field of a dataclass, inherited ones too -> its comment on one line."""
    found: dict[str, str] = {}
    for ancestor in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(ancestor):
            continue
        names = {field.name for field in dataclasses.fields(ancestor)}
        found |= _from_docstring(inspect.getdoc(ancestor) or "", names)
        try:
            lines = textwrap.dedent(inspect.getsource(ancestor)).splitlines()
        except OSError:  # no source beside the program
            continue
        for node in ast.iter_child_nodes(ast.parse("\n".join(lines)).body[0]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if comment := _comment_of(lines, node):
                    found[node.target.id] = comment
    return found


def _comment_of(lines: list[str], node: ast.AnnAssign) -> str:
    """The comment behind a statement, or the one on the lines above it."""
    end = (node.value or node.annotation).end_col_offset
    behind = lines[(node.end_lineno or node.lineno) - 1].encode()[end:].decode()
    if "#" in behind:
        return behind.partition("#")[2].strip()
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().lstrip("#").strip())
    return " ".join(above)


def _from_docstring(text: str, names: set[str]) -> dict[str, str]:
    """What a docstring says of fields: "name: ...", or "name, other: ...", at the start of a line or of a clause."""
    found: dict[str, str] = {}
    text = re.sub(r"\n[ \t]+(?=\S)", " ", text)  # a line that is indented belongs to the one above
    for line in text.splitlines():
        starts = [m for m in re.finditer(r"(?:^|[;.] )((?:\w+, )*\w+): ", line) if set(m[1].split(", ")) <= names]
        for start, after in zip_longest(starts, starts[1:]):
            said = line[start.end() : after.start() if after else len(line)]
            found |= dict.fromkeys(start[1].split(", "), said)
    return found


def _dataclass_in(kind: Any) -> tuple[type | None, bool]:
    """The dataclass that a type is, or holds, and whether it holds several."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return kind, False
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    for arg in args[:1] if origin is Annotated else args:
        member, several = _dataclass_in(arg)
        if member is not None:
            return member, several or origin in (list, tuple, dict)
    return None, False


def _kind_in_words(kind: Any) -> str:
    """A type as a person would say it: "integer at least 1", "one of fp32, mixed, bf16", "list of text"."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        ranges = [_range_in_words(limits) for limits in args[1:] if isinstance(limits, Range) and limits != ANY]
        return " ".join([_kind_in_words(args[0]), *ranges])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind_in_words(arg) for arg in args))
    if origin in (list, tuple):
        members = dict.fromkeys(_kind_in_words(arg) for arg in args if arg is not Ellipsis)
        count = "" if origin is list or Ellipsis in args else f"{len(args)} x "
        return f"list of {count}{', '.join(members)}"
    if origin in (dict, Mapping):
        return f"names with {_kind_in_words(args[1])} each"
    if dataclasses.is_dataclass(kind):
        return "group"
    names = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", type(None): "null"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _range_in_words(limits: Range) -> str:
    """Without the largest number of 64 bits, which holds for all."""
    return str(dataclasses.replace(limits, high=math.inf) if limits.high == LARGEST else limits)


def _default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default; MISSING where it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _in_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_in_yaml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_in_yaml(item)}' for name, item in value.items())}}}"
    if dataclasses.is_dataclass(value):
        changed = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != _default_of(field)
        }
        return _in_yaml(changed)
    return str(value) or "''"
