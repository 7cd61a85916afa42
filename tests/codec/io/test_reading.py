"""Readers of text that others wrote: one sentence for every damage, whatever it is, and soon."""

import csv
import json
import os
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.io import reading
from codec.io.errors import UserError
from codec.io.reading import load_json, load_yaml, read_json, read_json_lines, read_table, read_text, read_yaml

READERS = {
    "text": read_text,
    "json": read_json,
    "lines": lambda path: list(read_json_lines(path)),
    "table": read_table,
    "yaml": read_yaml,
}


@pytest.fixture(params=READERS, ids=str)
def reader(request):
    return READERS[request.param]


# ---- any file ----------------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused_at_once(tmp_path, reader):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("folder", "is a folder"), ("pipe", "no ordinary file"), ("none", "no such"), ("a\0b", "name")):
        with pytest.raises(UserError, match=words):
            reader(tmp_path / name)
    with pytest.raises(UserError, match="/dev/zero: is no ordinary file"):
        reader("/dev/zero")
    with pytest.raises(UserError, match="x: .*shorter name"):
        reader(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("file\ncafé\n".encode("latin-1"), "line 2: not text in UTF-8"),
        (b"a: 1\n" + b"b: 2\n" * 20_000 + b"\xe9\n", "line 20002: not text in UTF-8"),
        ("file,text\na,é\n".encode("utf-16"), "UTF-16; save it in UTF-8"),
        ("file,text\na,b\n".encode("utf-16-le"), "NUL bytes"),
        (b"a\0b: 1\n", "NUL bytes"),
    ],
)
def test_another_encoding_is_named(tmp_path, reader, content, words):
    (tmp_path / "x.csv").write_bytes(content)
    if reader is READERS["lines"]:
        words = f"{words}|line 1: not JSON"  # a line is read before the next one is seen
    with pytest.raises(UserError, match=words):
        reader(tmp_path / "x.csv")


def test_a_mark_of_utf8_and_any_line_end_are_read(tmp_path):
    for end in ("\n", "\r\n", "\r"):
        (tmp_path / "x.csv").write_bytes(f"\ufefffile,text{end}a.wav,é{end}{end}b.wav,ü{end}".encode())
        names, rows = read_table(tmp_path / "x.csv")
        assert names == ["file", "text"]
        assert [(where[-6:], row["text"]) for where, row in rows] == [("line 2", "é"), ("line 4", "ü")]
        (tmp_path / "x.jsonl").write_bytes(f'\ufeff{{"a": "é"}}{end}{end}{{"a": 2}}'.encode())
        assert [values["a"] for _, values in read_json_lines(tmp_path / "x.jsonl")] == ["é", 2]
    (tmp_path / "x.yaml").write_bytes("\ufeffa: é\r\nb: 2\r\n".encode())
    assert read_yaml(tmp_path / "x.yaml") == {"a": "é", "b": 2}


def test_a_file_of_100_mb_is_not_read(tmp_path):
    with open(tmp_path / "x.yaml", "wb") as file:
        file.write(b"a: 1\n# ")
        file.truncate(100 * 2**20)
    with pytest.raises(UserError, match="longer than the 1 MiB"):
        read_yaml(tmp_path / "x.yaml")


def test_a_line_without_end_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE", 1000)
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n{"a": "' + "x" * 2000 + '"}\n')
    with pytest.raises(UserError, match="line 2: longer than"):
        list(read_json_lines(tmp_path / "x.jsonl"))


# ---- YAML --------------------------------------------------------------------------------------------------------


def doubled(first, form):
    """Nine levels, each of which means the one before ten times."""
    lines, before = [f"a: &a {first}"], "a"
    for name in "bcdefghij":
        lines.append(f"{name}: &{name} {form.replace('X', '*' + before)}")
        before = name
    return "\n".join(lines)


TEN = ", ".join(["X"] * 10)
BOMBS = {
    "anchors": doubled("[x, x]", f"[{TEN}]"),
    "merges": doubled("{k0: 0, k1: 1}", f"{{<<: [{TEN}]}}"),
    "mixed": doubled("{k0: 0}", f"{{<<: [{TEN}], l: [{TEN}]}}"),
    "repeated merges": doubled("{k0: 0}", "{" + "<<: X, " * 10 + "}"),
    "a large map": "a: &a {" + ", ".join(f"k{i}: 0" for i in range(2000)) + "}\n"
    + "\n".join(f"b{i}: {{<<: *a}}" for i in range(200)),
    "block": "a: &a\n  - x\n" + "\n".join(
        f"{'abcdefghij'[i]}: &{'abcdefghij'[i]}\n" + f"  - *{'abcdefghij'[i - 1]}\n" * 10 for i in range(1, 10)
    ),
    "within itself": "a: &a [*a]",
    "merged with itself": "a: &a {<<: *a}",
}  # fmt: skip


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_few_lines_of_yaml_do_not_fill_the_memory(text):
    with pytest.raises(UserError, match=r"x.yaml: cannot be read as YAML \(.*(more than 20000 values|itself)"):
        load_yaml(text, "x.yaml")


def test_values_are_counted_while_they_are_read(monkeypatch):
    monkeypatch.setattr(reading, "MAX_VALUES", 1000)
    for text in ("[" + "1, " * 1000 + "1]", "- a\n" * 1001, "".join(f"k{i}: v\n" for i in range(600))):
        with pytest.raises(UserError, match="it holds more than 1000 values"):
            load_yaml(text, "x.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 20_000 + "]" * 20_000, "nested more than 100 deep"),
        ("- " * 500 + "x", "nested more than 100 deep"),
        ("a: " + "{b: " * 200 + "1" + "}" * 200, "nested more than 100 deep"),
        ("a: " + "7" * 5_000, "a number of 5000 digits"),
        ("a: 1." + "7" * 5_000, "a number of 5002 digits"),
        ("a: 9223372036854775808", "does not fit 64 bits"),
        ("a: 12:30", "line 1, column 4: 12:30 would be a number in base 60"),
        ("a: 1:30.5", "base 60"),
        ("a: 010", "base 8"),
        ("a: .inf", "no finite number"),
        ("a: -.inf", "no finite number"),
        ("a: .nan", "no finite number"),
        ("a: 1.0e+400", "no finite number"),
        ("a: 2024-01-01", "a date is not read here"),
        ("a: 2024-99-99", "a date"),
        ("a: 2024-01-01 10:00:00", "a date"),
        ("a: !!binary aGVsbG8=", "kind binary"),
        ("a: !!set {b, c}", "kind set"),
        ("a: !!omap [b: 1]", "kind omap"),
        ("a: !!pairs [b: 1]", "kind pairs"),
        ("a: !!python/object/apply:os.system [ls]", "kind python/object"),
        ("a: !mine x", "kind !mine"),
        ("a: !!int x", ""),
        ("a: !!int ''", ""),
        ("a: !!float ''", ""),
        ("a: !!bool maybe", ""),
        ("a: !!int [1]", ""),
        ("a: !!map [1]", ""),
        ("a: =", "kind value"),
        ("a: <<", "kind merge"),
        ("1: a", "line 1, column 1: the key '1' is no text"),
        ("null: a", "the key 'null' is no text"),
        ("yes: a", "the key 'yes' is no text"),
        ("a: {on: 1}", "the key 'on' is no text"),
        ("[a, b]: c", "the key a list or mapping is no text"),
        ("? {a: 1}\n: c", "the key a list or mapping is no text"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice, again on line 3"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a:\t1\n\tb: 2", ""),
        ("a: b: c", "line 1, column 5"),
        ("a: *b", "undefined alias"),
        ("a: [1", "line 1"),
        ('a: "\\ud800"', "half a character"),
        ('"\\ud800": a', "half a character"),
        ("a: {<<: 5}", "line 1"),
        ("a: {<<: [5]}", "line 1"),
        ("a: \x07", "special characters"),
    ],
)
def test_yaml_that_means_nothing_plain_is_refused(text, words):
    with pytest.raises(UserError, match=f"(?s)^x.yaml: cannot be read as YAML .*({words})") as error:
        load_yaml(text, "x.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("text", ["", "# a\n# b\n", "---\n", "- a\n", "just words", "5", "null"])
def test_a_yaml_file_without_keys_is_refused(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match="x.yaml: expected keys and values at the top"):
        read_yaml(tmp_path / "x.yaml")


def test_plain_yaml_means_what_it_says():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, {<<: *a}]\nd: 1.5\ne: 0\nf: '010'\ng: 1_000\nh: 0x10\n"
    assert load_yaml(text, "") == {
        "a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": 2}] * 2, "d": 1.5, "e": 0, "f": "010",
        "g": 1000, "h": 16,
    }  # fmt: skip
    nested = "x: {y: &b {<<: {k: 0}, k: 1}}\nc: {<<: *b}"  # merged before it is made
    assert load_yaml(nested, "") == {"x": {"y": {"k": 1}}, "c": {"k": 1}}


text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(-1e9, 1e9) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_json_is_read_as_it_was_written(value):
    assert load_json(json.dumps(value), "x") == value


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("a1:-[]{},&*<! \n\"'#|?%@\t0.e\\"), max_size=40))
def test_any_text_is_yaml_or_a_sentence(text):
    try:
        load_yaml(text, "x")
    except UserError as error:
        assert str(error).startswith("x: ")


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from('a1:-[]{},"\\ \n0.eEtruefalsnN'), max_size=40))
def test_any_text_is_json_or_a_sentence(text):
    try:
        load_json(text, "x")
    except UserError as error:
        assert str(error).startswith("x: ")


# ---- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "not JSON"),
        ('{"a": 1,}', "not JSON"),
        ("{'a': 1}", "not JSON .*at character 2"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": Infinity}', "Infinity is no number"),
        ('{"a": -Infinity}', "is no number"),
        ('{"a": 1e999}', "larger than any"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"b": {"a": 1, "a": 2}}', "'a' stands twice"),
        ("9" * 5_000, "a number of 5000 digits"),
        ("9" * 30, "does not fit 64 bits"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ("[" * 500 + "]" * 500, "nested more than 100 deep"),
        ('{"a":' * 300 + "1" + "}" * 300, "nested more than 100 deep"),
        ('"\\ud83d"', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        ('["\\udfff"]', "half a character"),
        ("// words\n{}", "not JSON"),
        ('{"a": 1}\n{"a": 2}', "line 2, column 1"),
    ],
)
def test_json_that_is_damaged_is_refused(text, words):
    with pytest.raises(UserError, match=f"^x.json: not JSON.*{words}|^x.json: {words}") as error:
        load_json(text, "x.json")
    assert len(str(error.value)) < 500


def test_whole_characters_written_as_escapes_are_read():
    assert load_json('"\\ud83d\\ude00"', "x") == "😀"
    assert load_json(json.dumps(["[" * 200]), "x") == ["[" * 200]
    assert load_json('"caf\\udce9.wav"', "x") == "caf\udce9.wav"  # a file name in Latin-1, as Python holds it


@pytest.mark.parametrize("line", ["[1]", "5", '"a"', "null", "nonsense", '{"a": NaN}', '{"a": 1', '{"a": 1}{"b": 2}'])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "x.jsonl").write_text(f'{{"a": 1}}\n\n{line}\n')
    with pytest.raises(UserError, match="x.jsonl, line 3: "):
        list(read_json_lines(tmp_path / "x.jsonl"))


# ---- tables ------------------------------------------------------------------------------------------------------


def table(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text, newline="")
    return read_table(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("file;text\na.wav;one\n", ".*seem to be separated by ';'; save it with commas"),
        ("file\ttext\na.wav\tone\n", ".*call it .tsv"),
        ("file|text\na.wav|one\n", ".*separated by"),
        ("file,file\na,b\n", "two columns are called 'file'"),
        ("file,text\na.wav\n", "line 2: has 1 cells"),
        ("file,text\n\na.wav,one,two\n", "line 3: has 3 cells"),
        ('file,text\na.wav,"one\ntwo"\nb.wav\n', "line 4: has 1 cells"),
        ('"file,text\na.wav,one\n', "line 1: "),
        ('file,"text\na.wav,one"\n', "line 1: the names of the columns run over"),
        ('file,text\na.wav,"one\nb.wav,two\n', "line 2: .*quotation mark that nothing closes"),
        ('file,text\na.wav,one\nb.wav,two\nc.wav,"three\n', "line 4: "),
        ('file,text\n"a.wav,one\nb.wav,two\n', "line 2: "),
        ('file,text\na.wav,"one" and more\n', "line 2: "),
        ('file,text\na.wav,"one\nb.wav,two\nc.wav,three"\n', "line 2: .*takes in line 3"),
        ('file,text\na.wav,"one\nb.wav,two"\n', "line 2: .*takes in line 3"),
        ('file,text\nx y.wav,"one\nb.wav,"two"\nc.wav,three\n', "line 2: "),
        ('file,text,who\na.wav,"one,ann\nb.wav,two",bob\n', "line 2: .*takes in line 3"),
        ('file,text\na.wav,"' + "x" * 200_000 + '"\n', "line 2: .*field larger than"),
    ],
)
def test_a_table_that_is_damaged_is_refused(tmp_path, text, words):
    with pytest.raises(UserError, match=f"t.csv(: |, )({words})"):
        table(tmp_path, text)


def test_cells_of_several_lines_are_read_and_lines_counted(tmp_path):
    text = 'file,text\na.wav,"He said ""yes"",\nand went home, slowly"\n\n,\nb.wav,"one, two"\nc.wav,5" pipe\n'
    _, rows = table(tmp_path, text)
    assert [(where.split()[-1], row["text"]) for where, row in rows] == [
        ("2", 'He said "yes",\nand went home, slowly'), ("6", "one, two"), ("7", '5" pipe'),
    ]  # fmt: skip


def test_a_column_without_a_name_is_left_out_and_said(tmp_path):
    with pytest.warns(UserWarning, match="column 1 has no name"):
        names, rows = table(tmp_path, ",file\n0,a.wav\n")
    assert names == ["file"] and rows[0][1] == {"file": "a.wav"}


def test_a_tsv_is_quoted_throughout_or_not_at_all(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, rows = table(tmp_path, 'path\tsentence\na.mp3\t"She said ""hi""\nand left"\nb.mp3\ttwo\n', "t.tsv")
    assert rows[0][1]["sentence"] == 'She said "hi"\nand left'
    raw = 'path\tsentence\na.mp3\t"Yes", he said\nb.mp3\t"open\nc.mp3\tclosed"\nd.mp3\tmore\n'
    with pytest.warns(UserWarning, match="quotation marks are taken as they stand"):
        _, rows = table(tmp_path, raw, "t.tsv")
    assert [row["sentence"] for _, row in rows] == ['"Yes", he said', '"open', 'closed"', "more"]
    with pytest.warns(UserWarning), pytest.raises(UserError, match="line 3: has 1 cells"):
        warnings.warn("reached", stacklevel=1)
        table(tmp_path, 'path\tsentence\na.mp3\t"one" x\nb.mp3\n', "t.tsv")


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(cells.filter(str.strip), cells), min_size=1, max_size=6), st.sampled_from(["csv", "tsv"]))
def test_what_a_program_wrote_as_a_table_is_read_or_refused(tmp_path_factory, rows, ending):
    """Never other rows than were written."""
    path = tmp_path_factory.mktemp("table") / f"t.{ending}"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="," if ending == "csv" else "\t")
        writer.writerows([("file", "text"), *rows])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, read = read_table(path)
    except (UserError, UserWarning):
        assert any(set('\n"\t,') & set("".join(row)) for row in rows)
    else:
        assert [tuple(row.values()) for _, row in read] == rows


@settings(max_examples=120, deadline=None)
@given(st.text(st.sampled_from('ab,";\t\n\r .'), max_size=60))
def test_a_mark_out_of_place_loses_no_row(tmp_path_factory, text):
    """Any text after a whole row is read or refused, with or without the mark that closes."""
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_text(f"file,text\na.wav,one\n{text}", newline="")
    try:
        names, rows = read_table(path)
    except UserError as error:
        assert str(error).startswith(str(path))
    else:
        assert names == ["file", "text"] and rows[0][1] == {"file": "a.wav", "text": "one"}
        assert all(len(row) == 2 for _, row in rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 8), st.data())
def test_an_open_mark_never_swallows_rows(tmp_path_factory, count, data):
    """One quotation mark too many, anywhere in a table of short rows, and perhaps another one later."""
    lines = [f"clip{i}.wav,words of {i}" for i in range(count)]
    for i in sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=2))):
        file, text = lines[i].split(",")
        at = data.draw(st.sampled_from([0, 3, len(text)]))
        lines[i] = f'{file},{text[:at]}"{text[at:]}'
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_text("file,text\n" + "\n".join(lines) + "\n")
    try:
        _, rows = read_table(path)
    except UserError as error:
        assert "line" in str(error)
    else:
        assert len(rows) == count
