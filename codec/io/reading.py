"""Text that others wrote: YAML, JSON, JSON lines and tables, read within bounds and without guesses.

Every reader names the file and the place in it, knows one encoding (UTF-8, with or without its mark), refuses what is
no ordinary file, and holds the limits below, so that no file, however made, hangs or fills the memory. Numbers are
finite and fit 64 bits; a key that stands twice is refused.
"""

from __future__ import annotations

import csv
import json
import math
import operator
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

from codec.io.errors import UserError, of_system
from codec.io.numbers import ANY
from codec.io.terminal import printable, shown

MAX_BYTES = 64 * 2**20  # of a JSON file
MAX_LINE = 4 * 2**20  # characters of a line of JSONL or of a table
MAX_YAML_BYTES = 2**20
MAX_VALUES = 20_000  # of a YAML file, which is read slowly; those counted that an alias or a merge repeats
MAX_DEPTH = 100  # of values within values
MAX_DIGITS = 400  # of a number

Row = tuple[str, dict[str, str]]  # where it stands, and its cells by the names of their columns


def open_text(path: str | Path, what: str = "file", remedy: str = "check the path") -> TextIO:
    """An ordinary file, open for reading as UTF-8. Raises UserError where there is none.

    Args:
        what, remedy: What the file should be, and where one is found, for the message where there is none.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{path}: is a folder, where a {what} is expected; {remedy}")
        if not stat.S_ISREG(mode):  # a pipe would be waited for, a device has no end
            raise UserError(f"{path}: is no ordinary file; write what it gives to a file first")
        file = path.open(encoding="utf-8-sig", newline="")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such {what}; {remedy}") from error
    except OSError as error:
        raise of_system(error, path) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: not a name that a file can have; {remedy}") from error
    start = file.buffer.peek(2)[:2]  # type: ignore[attr-defined]  # a BufferedReader, which `open` does not say
    if start in (b"\xff\xfe", b"\xfe\xff"):
        file.close()
        raise UserError(f"{path}: not text in UTF-8 but in UTF-16; save it in UTF-8")
    return file


def read_text(path: str | Path, what: str = "file", remedy: str = "check the path", limit: int = MAX_BYTES) -> str:
    """The text of a file of at most `limit` characters. Errors as in `open_text`, and where it is not UTF-8."""
    with open_text(path, what, remedy) as file:
        try:
            text = file.read(limit + 1)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except OSError as error:
            raise of_system(error, path) from error
    if len(text) > limit:
        raise UserError(f"{path}: longer than the {limit / 2**20:g} MiB of a {what}; {remedy}")
    if "\0" in text:
        raise _holds_nul(path)
    return text


def read_json(path: str | Path, what: str = "file", remedy: str = "check the path") -> Any:
    """The value in a JSON file. Raises UserError that names the file and the place."""
    return load_json(read_text(path, what, remedy), str(path), f"correct it, or {remedy}")


def load_json(text: str, source: str, remedy: str = "correct it") -> Any:
    """The value that JSON text means. Raises UserError that names `source`."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_number,
            parse_int=_integer,
            parse_float=_float,
        )
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
        if re.search(r"\\u[dD][89a-fA-F]", text):  # half a character may be written so, but is no text;
            # those stay that stand for bytes of a file name which is not UTF-8
            _check_text(json.dumps(value, ensure_ascii=False), "surrogateescape")
        return value
    except json.JSONDecodeError as error:
        at = f"character {error.pos + 1}" if "\n" not in text else f"line {error.lineno}, column {error.colno}"
        said = f"{error.msg}, at {at}" if text.strip() else "it is empty"
        raise UserError(f"{source}: not JSON ({said}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: not JSON that can be read ({_said(error)}); {remedy}") from error


def read_json_lines(
    path: str | Path, what: str = "file", remedy: str = "check the path"
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, object) of every line of a JSONL file that is not blank."""
    with open_text(path, what, remedy) as file:
        for number, line in _lines(file, path):
            if line.strip():
                where = f"{path}, line {number}"
                values = load_json(line.strip(), where, "correct the line")
                if not isinstance(values, dict):
                    raise UserError(f"{where}: must be a JSON object, not {shown(line.strip(), 60)}")
                yield where, values


def read_table(path: str | Path) -> tuple[list[str], list[Row]]:
    """(names of the columns, (where it stands, row) of every row) of a CSV file, or of a TSV file by its ending.

    Rows in which nothing stands are left out, and so is a column without a name, with a warning.

    CSV: cells are separated by commas; one that holds a comma, a line break or a quotation mark stands in quotation
    marks, those within doubled. A cell of several lines is refused where one of the lines could be a row of the table:
    then a quotation mark was left open and has swallowed it.
    TSV: quoted in this way throughout, or not at all; then a quotation mark is a character like any other, and a
    warning says so.
    """
    path = Path(path)
    if path.suffix.lower() != ".tsv":
        return _read_table(path, ",", quoted=True)
    try:
        return _read_table(path, "\t", quoted=True)
    except _QuotesError:
        read = _read_table(path, "\t", quoted=False)
        warnings.warn(
            f"{path}: its cells are not quoted, so that quotation marks are taken as they stand", stacklevel=2
        )
        return read


class _QuotesError(UserError):
    """What may come of quotation marks that are not meant as such."""


@dataclass
class _Record:
    """A row of a table as it stands in the file: the number of its first line, its cells, its lines."""

    line: int
    cells: list[str]
    lines: list[str]


def _read_table(path: Path, delimiter: str, quoted: bool) -> tuple[list[str], list[Row]]:
    records = _records(path, delimiter, quoted)
    header = next(records, None)
    if header is None:
        raise UserError(f"{path}: is empty; its first line must name the columns")
    names = [name.strip("\ufeff") for name in header.cells]
    _check_header(path, header, delimiter, names)
    rows, shape = [], _Shape(len(names), delimiter)
    for record in records:
        where = f"{path}, line {record.line}"
        if len(record.cells) != len(names):
            hint = "quote cells that hold a comma" if delimiter == "," else "a cell holds neither tab nor line break"
            raise _QuotesError(
                f"{where}: has {len(record.cells)} cells, not as many cells as the first line has columns "
                f"({len(names)}); {hint}"
            )
        shape.learn(record)
        rows.append((where, {name: cell for name, cell in zip(names, record.cells, strict=True) if name.strip()}))
    for record in shape.long:
        if swallowed := shape.swallowed(record):
            raise _QuotesError(
                f"{path}, line {record.line}: a quotation mark that opens in this row takes in line {swallowed}, which "
                "could be a row of its own; close the quotation mark, or take the line break out of the cell"
            )
    return [name for name in names if name.strip()], rows


def _records(path: Path, delimiter: str, quoted: bool) -> Iterator[_Record]:
    """The rows of a table in which something stands."""
    with open_text(path, "table") as file:
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for _, line in _lines(file, path):
                taken.append(line)
                yield line

        reader = csv.reader(
            lines(), delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        while True:
            begun = reader.line_num + 1
            taken.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise _QuotesError(
                    f"{path}, line {begun}: a row that begins here cannot be read ({error}); look for a quotation mark "
                    "that nothing closes, and double those within a quoted cell"
                ) from error
            if any(cell.strip() for cell in cells):
                yield _Record(begun, cells, list(taken))


def _check_header(path: Path, header: _Record, delimiter: str, names: list[str]) -> None:
    if len(header.lines) > 1:
        raise _QuotesError(
            f"{path}, line {header.line}: the names of the columns run over several lines; close the quotes"
        )
    others = [mark for mark in ",;\t|" if mark != delimiter]
    if len(names) == 1 and (found := [mark for mark in others if mark in names[0]]):
        between = "tabs" if delimiter == "\t" else "commas"
        raise UserError(
            f"{path}: the columns seem to be separated by {found[0]!r}; save it with {between} between them"
            + (", or call it .tsv" if found[0] == "\t" else ", or call it .csv" if found[0] == "," else "")
        )
    nameless = [number for number, name in enumerate(names, 1) if not name.strip()]
    if nameless:
        warnings.warn(f"{path}: column {nameless[0]} has no name and is not used", stacklevel=2)
    for name in names:
        if name.strip() and names.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name!r}; rename one")


class _Shape:
    """What the rows of a table look like, to tell a row from a line of text within a cell.

    In a column whose cells hold no blank anywhere, or all end like names of files, so does every row's.
    """

    def __init__(self, columns: int, delimiter: str) -> None:
        self.delimiter = delimiter
        self.long: list[_Record] = []  # rows of more than one line
        self.patterns: list[tuple[bool, ...]] = [()] * columns  # of each column, what is true of all cells of one line

    def learn(self, record: _Record) -> None:
        if len(record.lines) > 1:
            self.long.append(record)
        for column, cell in enumerate(record.cells):
            if "\n" not in cell and "\r" not in cell:
                before = self.patterns[column] or (True, True)
                self.patterns[column] = tuple(map(operator.and_, before, _looks(cell)))

    def swallowed(self, record: _Record) -> int | None:
        """The number of the first line within the row that could be a row itself."""
        for number, line in enumerate(record.lines[1:], record.line + 1):
            for quoting in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL):
                cells = next(csv.reader([line], delimiter=self.delimiter, quoting=quoting))
                if len(cells) == len(self.patterns) and all(map(_fits, cells, self.patterns)):
                    return number
        return None


def _looks(cell: str) -> tuple[bool, bool]:
    """Whether a cell holds no blank, and whether it ends like the name of a file."""
    cell = cell.strip(' \t\r\n"')
    return not re.search(r"\s", cell), bool(re.search(r"\.\w{1,5}$", cell))


def _fits(cell: str, pattern: tuple[bool, ...]) -> bool:
    return all(seen or not expected for seen, expected in zip(_looks(cell), pattern, strict=False))


def read_yaml(path: str | Path, what: str = "file", remedy: str = "check the path") -> dict[str, Any]:
    """A YAML file that holds keys and values. Raises UserError that names the file and the place."""
    values = load_yaml(read_text(path, what, remedy, MAX_YAML_BYTES), str(path))
    if not isinstance(values, dict):
        found = "nothing" if values is None else shown(values, 60)
        raise UserError(f"{path}: expected keys and values at the top, found {found}; write a line `key: value` each")
    return values


def load_yaml(text: str, source: str) -> Any:
    """The plain value that YAML text means: text, numbers, true, false, null, lists, and keys that are text.

    Aliases and merge keys are counted before they are followed: a few lines can mean a thousand million values. What
    YAML 1.1 takes for a date, for a number in base 60 (12:30) or 8 (010) is refused, since it is hardly ever meant.

    Raises:
        UserError: It cannot be read; names `source` and the line.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}, set()) > MAX_VALUES:
                raise ValueError(f"it means more than {MAX_VALUES} values through its anchors, write them out")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        said = printable(" ".join(f"{place}{error.problem or error.context}".split()))
        raise UserError(f"{source}: cannot be read as YAML ({said}); correct it") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError) as error:
        raise UserError(f"{source}: cannot be read as YAML ({_said(error)}); correct it") from error


class _Loader(yaml.SafeLoader):
    """YAML of bounded size and depth, and numbers that mean what they look like."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        if self.depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self._number(node)
        if re.match(r"[-+]?0[0-9_]", text):
            raise _at(node, f"{text} would be a number in base 8, put it in quotation marks or write no 0 first")
        value = super().construct_yaml_int(node)
        if ANY.problem(value):
            raise _at(node, f"the number {shown(text)} does not fit 64 bits")
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        text = self._number(node)
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise _at(node, f"{text} is no finite number")
        return value

    def _number(self, node: yaml.ScalarNode) -> str:
        text = self.construct_scalar(node)
        _check_digits(text)
        if ":" in text:
            raise _at(node, f"{text} would be a number in base 60, put it in quotation marks")
        return text


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map")}


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int:
    """Number of values that a node means, those under aliases counted each time they are used.

    Raises yaml.MarkedYAMLError for what is no plain value, and for a key that stands twice.
    """
    if id(node) in above:
        raise _at(node, "an anchor that holds itself")
    if id(node) not in known:
        above.add(id(node))
        if node.tag not in _PLAIN:
            kind = node.tag.removeprefix(_TAG)
            named = "a date" if kind == "timestamp" else f"a value of the kind {kind}"
            raise _at(node, f"{named} is not read here, put it in quotation marks if text is meant")
        parts: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [value for _, value in node.value]
        elif isinstance(node, yaml.ScalarNode):
            _check_text(node.value)
        known[id(node)] = 1 + sum(_size(part, known, above) for part in parts)
        above.remove(id(node))
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if key.tag == _TAG + "merge":
            continue  # `<<` brings keys in, and is none itself
        if not isinstance(key, yaml.ScalarNode) or key.tag != _TAG + "str":
            said = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _at(key, f"the key {said} is no text, put it in quotation marks")
        _check_text(key.value)
        if key.value in seen:
            raise _at(key, f"the key {shown(key.value)} stands twice, again on line {key.start_mark.line + 1}")
        seen.add(key.value)


def _at(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _lines(file: TextIO, path: str | Path) -> Iterator[tuple[int, str]]:
    """(number, line) of a text file, a line at a time in memory."""
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(MAX_LINE)
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except OSError as error:
            raise of_system(error, path) from error
        if not line:
            return
        if len(line) == MAX_LINE:
            raise UserError(f"{path}, line {number}: longer than {MAX_LINE / 2**20:g} MiB; it is no row of a table")
        if "\0" in line:
            raise _holds_nul(f"{path}, line {number}")
        yield number, line


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        parts = (part for whole in level for part in (whole.values() if isinstance(whole, dict) else whole))
        level = [part for part in parts if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _check_text(text: str, errors: str = "strict") -> None:
    try:
        text.encode("utf-8", errors)
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character (a lone surrogate), which is no text") from error


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


def _not_utf8(path: str | Path) -> UserError:
    """Says on which line the first bytes stand that are not UTF-8."""
    with open(path, "rb") as file:
        number, rest = 1, b""
        while block := file.readline(MAX_LINE):
            try:
                (rest + block).decode()
                rest = b""
            except UnicodeDecodeError as error:
                rest = (rest + block)[error.start :]
                if len(rest) > 3 or block.endswith(b"\n"):
                    break  # no character that only goes on in the next block
            number += block.endswith(b"\n")
    return UserError(f"{path}, line {number}: not text in UTF-8; save it in that encoding")


def _holds_nul(where: str | Path) -> UserError:
    return UserError(f"{where}: holds NUL bytes, as text in UTF-16 does and text in UTF-8 does not; save it in UTF-8")


def _said(error: Exception) -> str:
    """What a library says, on one line and at a readable length."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split())
    return printable(text[:300]) or type(error).__name__
