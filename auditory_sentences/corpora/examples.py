"""Examples of a task in a folder: recordings, and one table that says what is what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from auditory_sentences.builders.examples import ANSWER, example_parts, has_several_answers, require_example
from auditory_sentences.builders.tasks import Task
from auditory_sentences.corpora.rows import address_of, text_of
from auditory_sentences.corpora.table import TABLE_ENDINGS, is_file, read_rows
from auditory_sentences.sentence import TEXT_ROLES
from codec.io.errors import UserError
from codec.io.terminal import shown

STEM = "examples"  # name of the table, before its ending

ExampleFiles = Mapping[str, str | Path | list[Path]]  # name of a part, or "answer" -> text, file, files of all answers


def read_examples(place: str | Path, task: Task) -> list[ExampleFiles]:
    """The examples that a table describes, in its order: a row each, a column for each part and for the answer.

    Columns are called as the keywords of `UniAudio.perform`, and `answer`; files are relative to the table. Of several
    answers, as those of a separation, `answer` is a list, which only a table in JSONL can hold.

    Args:
        place: A folder with examples.jsonl, examples.csv or examples.tsv, or such a table itself.
        task: That they are examples of.

    Raises:
        UserError: There is no such table, or a row is no example; the message names file and row, and what is needed.
    """
    table = _table_of(Path(place), task)
    _, rows = read_rows(table)
    if not rows:
        raise UserError(f"{table}: holds no example; write a row for each, with {', '.join(example_parts(task))}")
    return [_example(row, where, table.parent, task) for where, row in rows]


def _table_of(place: Path, task: Task) -> Path:
    if not place.is_dir():
        if not place.exists():
            raise UserError(f"{place}: there is no such folder of examples; give one that holds {STEM}.jsonl or .csv")
        return place
    tables = [path for ending in TABLE_ENDINGS if (path := place / f"{STEM}{ending}").exists()]
    if not tables:
        raise UserError(
            f"{place}: holds no {STEM}.jsonl or {STEM}.csv; write one with a row for each example and the columns "
            f"{', '.join(example_parts(task))}"
        )
    if len(tables) > 1:
        named = " and ".join(path.name for path in tables)
        raise UserError(f"{place}: holds {named}; keep one of them, or give the table itself")
    return tables[0]


def _example(row: Mapping[str, Any], where: str, folder: Path, task: Task) -> ExampleFiles:
    roles = example_parts(task)
    filled = {name: value for name, value in row.items() if value not in (None, "")}
    require_example(task, {**filled, **{name: row[name] for name in row if name not in roles}}, where)
    made: dict[str, str | Path | list[Path]] = {}
    for name, role in roles.items():
        value = filled[name]
        if role in TEXT_ROLES:
            made[name] = _text(value, where, name)
        elif name == ANSWER and has_several_answers(task):
            if not isinstance(value, list):
                raise UserError(f"{where}: {name!r} of '{task.name}' is a list of files, as only a .jsonl can hold it")
            made[name] = [_file(one, where, name, folder) for one in value]
        else:
            made[name] = _file(value, where, name, folder)
    return made


def _text(value: Any, where: str, name: str) -> str:
    text = text_of(value, where, name)
    if not text:
        raise UserError(f"{where}: {name!r} is empty; write its words")
    return text


def _file(value: Any, where: str, name: str, folder: Path) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name!r} is the name of a sound file, not {shown(value)}; correct it")
    path = folder / address_of(value.strip(), where)
    if not is_file(path, where):
        raise UserError(f"{where}: the sound file {path} does not exist; correct the name")
    return path
