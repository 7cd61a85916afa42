"""YAML into dataclasses, strictly: a key or a value that was not expected is an error that says what was meant."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

import yaml

from codec.errors import UserError

T = TypeVar("T")


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys without a word; this one objects."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping. Raises UserError that names the file and the place."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no keys; see the files beside it for the form")
    return values


def from_mapping(cls: type[T], values: Any, where: str) -> T:
    """A dataclass from a mapping, nested dataclasses, tuples, mappings and optional values included.

    Raises UserError with `where` (file and place), for an unknown key with the nearest known one.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected keys and values, found {values!r}")
    types = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
            raise UserError(f"{where}: unknown key '{key}'; {hint}")
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"{where}: the key '{name}' is missing")
    parsed = {key: _value(types[key], value, f"{where}: {key}") for key, value in values.items()}
    try:
        return cls(**parsed)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_mapping(kind, value, where)
    if origin in (UnionType, typing.Union):  # only `X | None` is used
        return None if value is None else _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UserError(f"{where}: expected a list, found {value!r}")
        return tuple(_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected keys and values, found {value!r}")
        return {_value(arguments[0], k, where): _value(arguments[1], v, f"{where}: {k}") for k, v in value.items()}
    if origin is typing.Literal:
        if value not in arguments:
            near = get_close_matches(str(value), [str(a) for a in arguments], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(map(str, arguments))}"
            raise UserError(f"{where}: '{value}' is not known; {hint}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}: expected {kind.__name__}, found {value!r}")
    return value
