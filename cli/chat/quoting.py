"""Lines of a chat, parsed as a shell would: quotation marks, backslashes and spaces.

One thing is kinder than in a shell: a single quotation mark after a letter is an apostrophe, so that "it's" can be
said as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from codec.io.errors import UserError
from codec.io.terminal import shown

_ESCAPABLE = " \t\"'\\="  # what a backslash protects; before anything else it is a character of a name


class Word(NamedTuple):
    """text: without the marks that quoted it; end: where the rest of the line begins."""

    # without its quotes
    text: str
    # place behind it in the line
    end: int


def _characters(line: str) -> Iterator[tuple[int, str, bool]]:
    """Place, character and whether it stands bare, neither quoted nor escaped; a quotation mark comes as "".

    Raises UserError at the end of a line with a quotation mark that nothing closes.
    """
    quote, opened, place = "", 0, 0
    while place < len(line):
        at, character, following = place, line[place], line[place + 1 : place + 2]
        place += 1
        if quote and character == quote:
            quote = ""
        elif quote == '"' and character == "\\" and following and following in '"\\':
            place += 1
            yield at, following, False
        elif quote:
            yield at, character, False
        elif character == "\\" and following and following in _ESCAPABLE:
            place += 1
            yield at, following, False
        elif character == '"' or (character == "'" and not line[max(at - 1, 0) : at].isalnum()):
            quote, opened = character, at
            yield at, "", False
        else:
            yield at, character, True
    if quote:
        raise UserError(f"{shown(line[opened:])}: this quotation mark is not closed; close it, or write \\{quote}")


def words(line: str) -> list[Word]:
    """The words of a line. Raises UserError for a quotation mark that nothing closes."""
    found: list[Word] = []
    text: list[str] | None = None
    for place, character, bare in _characters(line):
        if not (bare and character.isspace()):
            text = text or []
            text.append(character)
        elif text is not None:
            found.append(Word("".join(text), place))
            text = None
    return found if text is None else [*found, Word("".join(text), len(line))]


def one(line: str) -> str:
    """A line that is one name or one text: without its quotation marks where it is a single word, else as it is."""
    found = words(line)
    return found[0].text if len(found) == 1 else line.strip()


def first(line: str) -> tuple[str, str]:
    """The first word and what comes after it, both "" where there is none."""
    found = words(line)
    return (found[0].text, line[found[0].end :].strip()) if found else ("", "")


def sides(line: str) -> tuple[str, str] | None:
    """What is left and right of the first bare =>; None where there is none. Raises UserError as `words`."""
    before = -2  # where a bare = was
    for place, character, bare in _characters(line):
        if bare and character == ">" and before == place - 1:
            return line[:before].strip(), line[place + 1 :].strip()
        if bare and character == "=":
            before = place
    return None


def flag(line: str, name: str) -> tuple[str, bool]:
    """What stands before a bare word such as --room at the end of a line, and whether it is there."""
    found = words(line)
    if found and found[-1].text == name and line.rstrip().endswith(name):
        return line.rstrip().removesuffix(name).strip(), True
    return line, False


def need(rest: str, usage: str) -> str:
    """The words of a command, without quotation marks around all of them. Raises UserError where there are none."""
    # Within the words a quotation mark is one of the words.
    quoted = rest[:1] in ("'", '"')
    text = one(rest) if quoted else rest
    if not text.strip():
        raise UserError(f"write {usage}")
    return text


def file(rest: str, usage: str, parsed: bool = False) -> Path:
    """The file or folder that a command names. Raises UserError where it names none."""
    name = rest if parsed else one(rest)
    if not name:
        raise UserError(f"write {usage}")
    if "\0" in name:
        raise UserError(f"{shown(name)}: not a name that a file can have")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise UserError(f"{shown(name)}: there is no such home folder; write the whole path") from error


def file_and_words(rest: str, usage: str) -> tuple[Path, str]:
    """A file and the words about it: FILE WORDS or FILE => WORDS, where a name with spaces is quoted.

    Raises UserError where either is missing.
    """
    name, text = first(rest)
    return file(name, usage, parsed=True), need(text.removeprefix("=>").strip(), usage)
