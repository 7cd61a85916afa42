"""Text that others wrote: YAML, JSON, JSON lines and tables, read within bounds and without guesses.

Every reader names the file and the place in it, knows one encoding (UTF-8, with or without its mark), refuses what is
no ordinary file, and holds the limits below, so that no file, however made, hangs or fills the memory. Numbers are
finite and fit 64 bits; a key that stands twice is refused.
"""

from __future__ import annotations

import csv
import json
import math
import stat
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, TextIO

import yaml

from codec.errors import UserError, of_system
from codec.numbers import ANY
from codec.terminal import printable, shown

MAX_BYTES = 64 * 2**20  # of a JSON file, and of one line of a table
MAX_YAML_BYTES = 4 * 2**20  # YAML is read slowly
MAX_VALUES = 200_000  # of a YAML file, those counted that an alias or a merge repeats
MAX_DIGITS = 400  # of a number


def open_text(path: str | Path, what: str = "file", remedy: str = "check the path") -> TextIO:
    """An ordinary file, open for reading as UTF-8. Raises UserError where there is none.

    what, remedy: what the file should be, and where one is found, for the message where there is none
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a folder, where a {what} is expected; {remedy}")
        if not stat.S_ISREG(mode):  # a pipe would be waited for, a device has no end
            raise UserError(f"{path}: is no ordinary file; write what it gives to a file first")
        return path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}; {remedy}") from error
    except OSError as error:
        raise of_system(error, path) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: not a name that a file can have; {remedy}") from error


def read_text(path: str | Path, what: str = "file", remedy: str = "check the path", limit: int = MAX_BYTES) -> str:
    """The text of a file of at most `limit` bytes. Errors as in `open_text`, and where it is not UTF-8."""
    with open_text(path, what, remedy) as file:
        try:
            text = file.read(limit + 1)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
        except OSError as error:
            raise of_system(error, path) from error
    if len(text) > limit:
        raise UserError(f"{path}: longer than the {limit / 2**20:g} MiB of a {what}; {remedy}")
    return text


def read_json(path: str | Path, what: str = "file", remedy: str = "check the path") -> Any:
    """The value in a JSON file. Raises UserError that names the file and the place."""
    return load_json(read_text(path, what, remedy), str(path), f"correct it, or {remedy}")


def load_json(text: str, source: str, remedy: str = "correct it") -> Any:
    """The value that JSON text means. Raises UserError that names `source`."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_float,
        )
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON that can be read ({_said(error)}); {remedy}") from error


def read_json_lines(path: str | Path, what: str = "file", remedy: str = "check the path") -> Iterator[tuple[str, dict]]:
    """(where it stands, object) of every line of a JSONL file that is not blank."""
    with open_text(path, what, remedy) as file:
        for number, line in _lines(file, path):
            if line.strip():
                where = f"{path}, line {number}"
                values = load_json(line, where, "correct the line")
                if not isinstance(values, dict):
                    raise UserError(f"{where}: must be a JSON object, not {shown(line.strip(), 60)}")
                yield where, values


def read_table(path: str | Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """(names of the columns, (where it stands, row) of every row) of a CSV file, or of a TSV file by its ending."""
    path = Path(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = []
    with open_text(path, "table") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        begun = 1  # line on which the row begins
        try:
            names = list(reader.fieldnames or [])
            for row in reader:
                where = f"{path}, line {begun + 1}"
                begun = reader.line_num
                if None in row or None in row.values():
                    raise UserError(
                        f"{where}: has not as many cells as the first line has columns; quote cells with commas"
                    )
                rows.append((where, row))
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
        except csv.Error as error:
            raise UserError(
                f"{path}, line {begun + 1}: a row that begins here cannot be read as CSV ({error}); look for a "
                "quotation mark that nothing closes"
            ) from error
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one")
    return names, rows


def read_yaml(path: str | Path, what: str = "file", remedy: str = "check the path") -> dict[str, Any]:
    """A YAML file that holds keys and values. Raises UserError that names the file and the place."""
    values = load_yaml(read_text(path, what, remedy, MAX_YAML_BYTES), str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values at the top; see the files beside it for the form")
    return values


def load_yaml(text: str, source: str) -> Any:
    """The value that YAML text means. Raises UserError that names `source` where it means none, or a key stands twice.

    Aliases and merge keys are counted before they are followed: a few lines can mean a thousand million values.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            count = _size(node, {}, set())
            if count > MAX_VALUES:
                raise UserError(f"{source}: means more than {MAX_VALUES} values through its anchors; write them out")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, AttributeError, TypeError) as error:
        raise UserError(f"{source}: cannot be read as YAML ({_said(error)}); correct it") from error


class _Loader(yaml.SafeLoader):
    """YAML that refuses a repeated key instead of keeping the last, and numbers that nothing holds."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<` brings keys in, and is none itself
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                raise yaml.YAMLError(f"the key {shown(key)} stands twice, again on line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        _check_digits(node.value)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Number of values that a node means, those under aliases counted each time they are used."""
    if id(node) in above:
        raise ValueError("an anchor that holds itself")
    if id(node) not in known:
        above.add(id(node))
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_size(part, known, above) for part in parts)
        above.remove(id(node))
    return known[id(node)]


def _lines(file: TextIO, path: str | Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file, a line at a time in memory."""
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_BYTES)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error) from error
        if not line:
            return
        if len(line) == MAX_BYTES:
            raise UserError(f"{path}, line {number}: longer than {MAX_BYTES / 2**20:g} MiB; it is no row of a table")
        yield number, line


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {shown(key)} stands twice")
        made[key] = value
    return made


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _integer(text: str) -> int:
    _check_digits(text)
    value = int(text)
    if ANY.problem(value):
        raise ValueError(f"the number {shown(text)} does not fit 64 bits")
    return value


def _float(text: str) -> float:
    _check_digits(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shown(text)} is larger than any that can be computed with")
    return value


def _check_digits(text: str) -> None:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")


def _not_utf8(path: str | Path, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{path}: not text in UTF-8 ({error.reason}); save it in that encoding")


def _said(error: Exception) -> str:
    """What a library says, on one line and at a readable length."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split())
    return printable(text[:300]) or type(error).__name__
