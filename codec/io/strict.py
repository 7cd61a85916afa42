"""Plain values into dataclasses, strictly: an unexpected key or value is an error that names the nearest known one.

Recipes, evaluation tasks, descriptions of corpora and the configurations of saved models are read with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from codec.io import aliases
from codec.io.errors import UserError
from codec.io.numbers import ANY, Filled, Range
from codec.io.terminal import shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def parse(cls: type[T], tree: Any, source: str, key: str = "") -> T:
    """A dataclass from a tree of plain values, nested dataclasses included.

    Former names of keys and values are read too (codec/io/aliases.py).

    Args:
        cls: The dataclass; its annotations are the types that are expected.
        tree: Keys and values.
        source: Names the file in errors.
        key: Of the tree within the file, for errors.

    Raises:
        UserError: A key is unknown (the nearest known one is named) or missing, a value is of a different type or out
            of range, or the dataclass itself refuses its values by a UserError or ValueError.
    """
    where = f"{source}: {key}: " if key else f"{source}: "
    if not isinstance(tree, dict):
        raise UserError(f"{where}expected keys and values, found {shown(tree)}")
    tree = aliases.present(cls, tree, source)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = type_hints_of(cls)
    for name in tree:
        if name not in fields:
            hint = nearest(str(name), fields) or f"; known keys: {', '.join(fields)}"
            raise UserError(f"{source}: unknown key {shown(_join(key, str(name)))}{hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise UserError(f"{source}: key {_join(key, name)!r} is missing; it has no default")
    values = {name: _convert(hints[name], value, source, _join(key, name)) for name, value in tree.items()}
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except ValueError as error:
        raise UserError(f"{where}{error}") from error


def _convert(kind: Any, value: Any, source: str, key: str) -> Any:
    """`value` as the annotated type `kind`, or a UserError. Lossless readings only: 1 for a float, no 1.5 for an int"""
    if kind is str and type(value) is str:  # most of a corpus
        return value
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        read = _convert(args[0], value, source, key)
        for limits in args[1:]:
            if isinstance(limits, Range | Filled) and read is not None and (problem := limits.problem(read)):
                raise UserError(f"{source}: {key!r} {problem}, not {shown(value)}")
        return read
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        members = [arg for arg in args if arg is not type(None)]
        for member in members[:-1]:
            try:
                return _convert(member, value, source, key)
            except UserError:
                continue
        return _convert(members[-1], value, source, key)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return parse(kind, value, source, key)
    if origin is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        choices = ", ".join(map(str, args))
        raise UserError(
            f"{source}: {key!r} must be one of {choices}, not {shown(value)}{nearest(str(value), map(str, args))}"
        )
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        if origin is list or (len(args) == 2 and args[1] is Ellipsis):
            members = [args[0]] * len(value)
        else:
            members = list(args)
        if len(members) != len(value):
            raise UserError(f"{source}: {key!r} needs {len(members)} values, not {len(value)}")
        return origin(
            _convert(m, v, source, f"{key}[{i}]") for i, (m, v) in enumerate(zip(members, value, strict=True))
        )
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {
            _convert(args[0], k, source, key): _convert(args[1], v, source, _join(key, str(k)))
            for k, v in value.items()
        }
    if origin in (list, tuple):
        raise UserError(f"{source}: {key!r} must be a list, not {shown(value)}")
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, int | float) and not isinstance(value, bool) and kind in (int, float):
        if problem := ANY.problem(value):
            raise UserError(f"{source}: {key!r} {problem}, not {shown(value)}")
        value = kind(value) if kind is float else value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(kind, type) and isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    expected = kind.__name__ if isinstance(kind, type) and not args else str(kind).replace("typing.", "")
    raise UserError(f"{source}: {key!r} must be {expected}, not {shown(value)}")


def without_defaults(config: Any) -> Any:
    """Plain values of a dataclass without those left at their default, under the names that keys first had.

    Equal for two versions of a dataclass when a field is new or renamed: the identity of a codec is made of it.
    """
    if dataclasses.is_dataclass(config):
        values = {}
        for known in dataclasses.fields(config):
            value = getattr(config, known.name)
            default = known.default if known.default_factory is dataclasses.MISSING else known.default_factory()
            if value != default:
                key, value = aliases.former(type(config), known.name, value)
                values[key] = without_defaults(value)
        return values
    if isinstance(config, dict):
        return {name: without_defaults(value) for name, value in config.items()}
    return [without_defaults(value) for value in config] if isinstance(config, tuple) else config


@functools.cache
def type_hints_of(cls: type) -> dict[str, Any]:
    """Types of a dataclass's fields, `Annotated` included; kept, as finding them takes longer than reading a row."""
    return typing.get_type_hints(cls, include_extras=True)


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, as the end of a sentence; "" where nothing known is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
