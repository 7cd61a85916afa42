"""Corpora: every kind gives the same clips for the same content, and says what is wrong with the rest."""

import csv
import json
import os
import warnings
from dataclasses import fields

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.corpora.clip import KINDS, SPLITS, Clip
from auditory_sentences.corpora.read import describe, read_corpora, read_corpus
from codec.io.errors import UserError


def write_table(path, rows):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


ROWS = [
    {"file": "a.wav", "text": "one, two", "speaker": "ann", "mood": "glad"},
    {"file": "b.flac", "text": "three", "speaker": "bob", "mood": ""},
]

plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
name = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
clips = st.builds(
    Clip,
    id=name.map("c/{}".format),
    path=name.map("a/{}".format),
    kind=st.sampled_from(KINDS),
    split=st.sampled_from(SPLITS),
    text=plain,
    caption=plain,
    speaker=plain,
    labels=st.dictionaries(name, plain, max_size=3),
    group=name,
    position=st.integers(0, 9),
    parts=st.lists(name.map("p/{}".format), max_size=2).map(tuple),
    licence=plain,
    source=plain,
)


@settings(max_examples=50)
@given(clips)
def test_a_clip_survives_its_line(tmp_path_factory, clip):
    folder = tmp_path_factory.mktemp("line")
    others = [Clip(part, "x", "sound", "train") for part in set(clip.parts)]
    (folder / "clips.jsonl").write_text("".join(c.to_json() + "\n" for c in [clip, *others]), encoding="utf-8")
    read = read_corpus(folder)[0]
    assert read.path == str(folder / clip.path)
    assert Clip(**{**vars(read), "path": clip.path}) == clip


def test_a_table(folder):
    write_table(folder / "t.csv", ROWS)
    spec = {"kind": "table", "path": folder / "t.csv", "labels": ["mood"], "licence": "CC0-1.0", "split": "dev"}
    first, second = read_corpus(spec)
    assert first == Clip(
        id="a.wav", path=str(folder / "a.wav"), kind="speech", split="dev", text="one, two", speaker="ann",
        labels={"mood": "glad"}, licence="CC0-1.0",
    )  # fmt: skip
    assert second.labels == {} and second.text == "three"


def test_a_table_with_other_names_and_every_field(folder):
    row = {"wav": "a.wav", "nr": "7", "sort": "music", "part": "test", "words": "", "about": "a tune", "rec": "r"}
    row["at"] = "3"
    (folder / "t.jsonl").write_text(json.dumps(row) + "\n\n")
    columns = {
        "file": "wav", "id": "nr", "kind": "sort", "split": "part", "text": "words", "caption": "about", "group": "rec",
        "position": "at",
    }  # fmt: skip
    (clip,) = read_corpus({"kind": "table", "path": folder / "t.jsonl", "columns": columns, "source": "mine"})
    assert clip == Clip(
        "7", str(folder / "a.wav"), "music", "test", caption="a tune", group="r", position=3, source="mine"
    )


def test_paths_in_a_yaml_file_are_relative_to_it(folder, monkeypatch):
    write_table(folder / "t.csv", ROWS)
    (folder / "corpus.yaml").write_text("kind: table\npath: t.csv\nname: mine\n")
    monkeypatch.chdir("/")
    assert [clip.id for clip in read_corpus(folder / "corpus.yaml")] == ["mine/a.wav", "mine/b.flac"]


def test_names_keep_corpora_apart(folder):
    lines = [
        Clip("m", "a.wav", "mixture", "train", parts=("s",), group="g"),
        Clip("s", "b.flac", "speech", "train"),
    ]
    (folder / "clips.jsonl").write_text("".join(clip.to_json() + "\n" for clip in lines))
    plain = {"kind": "clips", "path": folder}
    with pytest.raises(UserError, match="two clips are called 'm'.*name"):
        read_corpora([plain, folder])
    joined = read_corpora([plain, plain | {"name": "again"}])
    assert [clip.id for clip in joined] == ["m", "s", "again/m", "again/s"]
    assert joined[2].parts == ("again/s",) and joined[2].group == "again/g" and joined[3].group == ""


def test_spoken_digits(tmp_path):
    for name in ("3_george_44", "3_george_45", "0_lucas_49", "9_jackson_5"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(800), 8_000)
    read = {clip.id: clip for clip in read_corpus({"kind": "spoken_digits", "path": tmp_path})}
    assert {name: clip.split for name, clip in read.items()} == {
        "0_lucas_49": "dev", "3_george_44": "train", "3_george_45": "dev", "9_jackson_5": "train",
    }  # fmt: skip
    assert read["3_george_44"].text == "three" and read["0_lucas_49"].speaker == "lucas"
    assert all(clip.licence == "CC-BY-SA-4.0" for clip in read.values())
    soundfile.write(tmp_path / "noise.wav", np.zeros(800), 8_000)
    with pytest.raises(UserError, match="noise.wav"):
        read_corpus({"kind": "spoken_digits", "path": tmp_path})


def test_real_spoken_digits(real_audio_dir):
    read = read_corpus({"kind": "spoken_digits", "path": real_audio_dir / "spoken_digits" / "recordings"})
    assert len(read) == 1800 and sum(clip.split == "dev" for clip in read) == 200
    assert {clip.speaker for clip in read} == {"george", "jackson", "lucas", "nicolas"}


# ---- datasets ----------------------------------------------------------------------------------------------------


GOOD = {"id": "a", "path": "a.wav", "kind": "speech", "split": "train"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("not json", "line 2: not JSON"),
        ("[1]", "line 2: must be a JSON object"),
        (json.dumps({**GOOD, "speeker": "x"}), "unknown key 'speeker'; did you mean 'speaker'"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "split"}), "line 2: key 'split' is missing"),
        (
            json.dumps({**GOOD, "split": "training"}),
            "line 2: 'split' must be one of .* not 'training'; did you",
        ),
        (json.dumps({**GOOD, "kind": "noise"}), "line 2: 'kind' must be one of"),
        (json.dumps({**GOOD, "text": 5}), "line 2: 'text' must be str"),
        (json.dumps({**GOOD, "labels": {"a": 1}}), "line 2: 'labels.a' must be str"),
        (json.dumps({**GOOD, "position": "1"}), "line 2: 'position' must be int"),
        (json.dumps({**GOOD, "parts": "ab"}), "line 2: 'parts' must be a list"),
        (json.dumps({**GOOD, "id": "first"}), "line 2: two clips are called 'first'"),
        (json.dumps({**GOOD, "parts": ["z"]}), "line 2: .*names 'z' as a part"),
        (json.dumps({**GOOD, "parts": ["a"]}), "line 2: .*names itself"),
        (json.dumps({**GOOD, "position": -1}), "line 2: 'position' must be at least 0"),
        (json.dumps({**GOOD, "id": "a\tb"}), r"line 2: the id 'a\\tb'"),
        (json.dumps({**GOOD, "id": " "}), "line 2: .*both id and path must say something"),
        (json.dumps({**GOOD, "path": "https://x.org/a.wav"}), "line 2: .*is an address, not a file"),
        (json.dumps({**GOOD, "path": "a\0b"}), "line 2: .*not a name that a file can have"),
        (json.dumps(GOOD)[:-1] + ', "id": "b"}', "line 2: .*'id' stands twice"),
        ('{"id": NaN}', "line 2: .*NaN"),
        ('{"id": "\\ud800"}', "line 2: .*half a character"),
        (json.dumps({**GOOD, "text": "\udce9"}), "line 2: .*half a character"),
        ("[" * 500 + "]" * 500, "line 2: .*nested more than 100 deep"),
    ],
)
def test_a_bad_line(tmp_path, line, fault):
    (tmp_path / "clips.jsonl").write_text(json.dumps(GOOD | {"id": "first"}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=fault):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"path": "nowhere.csv"}, "nowhere.csv: no such table"),
        ({"path": "t.xlsx"}, "ends in .csv, .tsv or .jsonl"),
        ({"columns": {"text": "txt"}}, "no column 'txt'; did you mean 'text'.*it has file, text, speaker, mood"),
        ({"columns": {"words": "text"}}, "columns has 'words'"),
        ({"columns": {"file": "wav"}}, "no column 'wav'"),
        ({"labels": ["moood"]}, "did you mean 'mood'"),
        ({"clip_kind": "spech"}, "'clip_kind' must be one of .* not 'spech'; did you mean 'speech'"),
        ({"colums": {}}, "unknown key 'colums'; did you mean 'columns'"),
        ({"kind": "tabel"}, "'tabel' is not one of"),
    ],
)
def test_a_bad_description(folder, change, fault):
    write_table(folder / "t.csv", ROWS)
    (folder / "t.xlsx").write_bytes(b"")
    spec = {"kind": "table", "path": "t.csv"} | change
    (folder / "c.yaml").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=fault):
        read_corpus(folder / "c.yaml")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"file": "z.wav"}], "line 2: the audio file .*z.wav does not exist"),
        ([{"file": "", "text": "x"}], "line 2: column 'file'"),
        ([{"file": "a.wav", "position": "x"}], "position 'x'"),
        ([{"file": "a.wav"}, {"file": "a.wav"}], "two clips are called 'a.wav'"),
    ],
)
def test_a_bad_row(folder, rows, fault):
    with pytest.raises(UserError, match=fault):
        read_corpus({"kind": "table", "path": write_table(folder / "t.csv", rows)})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"file,text\na.wav\n", "line 2: has 1 cells, not as many"),
        (b"file,text\na.wav,one,two\n", "line 2: has 3 cells, not as many"),
        (b"file,text\na.wav,\xff\xfe\n", "line 2: not text in UTF-8"),
        (b"", "t.csv: is empty"),
        (b"file\n", "holds no clip"),
    ],
)
def test_a_table_that_is_not_one(folder, content, fault):
    (folder / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=fault):
        read_corpus({"kind": "table", "path": folder / "t.csv"})


def test_a_text_of_100000_characters_is_read(folder):
    write_table(folder / "t.csv", [{"file": "a.wav", "text": "word " * 20_000}])
    assert len(read_corpus({"kind": "table", "path": folder / "t.csv"})[0].text) == 99_999


@pytest.mark.parametrize(
    ("content", "fault"),
    [("- a\n- b\n", "expected keys and values"), ("kind: [", "cannot be read as YAML"), ("path: x\n", "kind None")],
)
def test_a_bad_yaml_file(tmp_path, content, fault):
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(UserError, match=fault):
        describe(tmp_path / "c.yaml")


def test_a_folder_that_is_no_corpus(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(UserError, match="clips.jsonl: no such file"):
        read_corpus(tmp_path)
    with pytest.raises(UserError, match="holds no .wav file"):
        read_corpus({"kind": "spoken_digits", "path": tmp_path})


# ---- descriptions ------------------------------------------------------------------------------------------------

WRONG = [5, 1.5, True, None, "", "a", "a\0b", [], ["a"], [1], {}, {"a": "b"}, {"a": 1}, 2**70, [[["a"]]]]


@pytest.mark.parametrize("kind", ["clips", "table", "dataset", "spoken_digits"])
def test_any_value_at_any_key_is_read_or_refused_with_its_name(tmp_path, kind):
    whole = {"kind": kind, "path": str(tmp_path / "nowhere")} | ({"source_split": "train"} if kind == "dataset" else {})
    keys = [field.name for field in fields(type(describe(whole)))] if kind != "clips" else ["path", "name"]
    for key in ["kind", *keys]:
        for value in WRONG:
            (tmp_path / "c.yaml").write_text(json.dumps(whole | {key: value}))
            for spec in (tmp_path / "c.yaml", whole | {key: value}):
                try:
                    assert describe(spec) is not None
                except UserError as error:
                    named = (
                        f"{key!r}" in str(error)
                        or f"'{key}." in str(error)
                        or f"'{key}[" in str(error)
                        or f"{key} " in str(error)
                    )
                    assert named or "line 1, column" in str(error)
                    assert isinstance(spec, dict) or str(spec) in str(error)


@pytest.mark.parametrize("spec", [{}, {"kind": None}, {"kind": ["table"]}, {"kind": "table"}, {"kind": "table", 5: 1}])
def test_a_description_in_python_is_read_as_strictly(spec):
    with pytest.raises(UserError, match="^corpus: "):
        describe(spec)


def test_a_file_is_no_folder_of_a_corpus(folder):
    with pytest.raises(UserError, match="t.csv: is a file, where the folder .* describe a file in a YAML file"):
        read_corpus(write_table(folder / "t.csv", ROWS))


# ---- columns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("file", "Text"), ("file", " text"), ("file", "TEXT "), ("File", "transcript"), ("file_name", "Transcription"),
        ("filename", "sentence"), ("path", "normalized_text"), ("audio", "SENTENCE"), ("audio_filepath", "text"),
        ("wav", "Normalized Text"), (" file ", "Transcript"), ("Audio-FilePath", "utterance"),
    ],
)  # fmt: skip
def test_columns_are_known_by_other_names_and_it_is_said(folder, ending, file, text):
    path = folder / f"t.{ending}"
    if ending == "jsonl":
        path.write_text(json.dumps({file: "a.wav", text: "hello there", "n": 1}) + "\n")
    else:
        mark = "," if ending == "csv" else "\t"
        path.write_text(f"{file}{mark}{text}\na.wav{mark}hello there\n")
    with pytest.warns(UserWarning, match="takes the column .*`columns` can say otherwise"):
        (clip,) = read_corpus({"kind": "table", "path": path})
    assert clip.text == "hello there" and clip.path == str(folder / "a.wav") and clip.id == "a.wav"


def test_what_could_be_either_is_asked_about_and_columns_decides(folder):
    path = write_table(folder / "t.csv", [{"file": "a.wav", "sentence": "one", "transcript": "two", "Text ": ""}])
    with pytest.warns(UserWarning, match="'Text ' as text"):  # our own name goes before others
        read_corpus({"kind": "table", "path": path})
    path = write_table(folder / "t.csv", [{"file": "a.wav", "sentence": "one", "transcript": "two"}])
    with pytest.raises(UserError, match="text could be any of the columns sentence, transcript; say which"):
        read_corpus({"kind": "table", "path": path})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (clip,) = read_corpus({"kind": "table", "path": path, "columns": {"text": "transcript"}})
        assert clip.text == "two"
        (clip,) = read_corpus(
            {"kind": "table", "path": path, "columns": {"text": "sentence"}, "labels": ["transcript"]}
        )
        assert clip.text == "one" and clip.labels == {"transcript": "two"}
    path = write_table(folder / "t.csv", [{"path": "a.wav", "wav": "a.wav", "text": "one"}])
    with pytest.raises(UserError, match="file could be any of the columns path, wav"):
        read_corpus({"kind": "table", "path": path})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"file": "a.wav", "txt": "one"}, "column 'txt' is not used; if it is the text"),
        ({"file": "a.wav", "sentance": "one"}, "column 'sentance' is not used; if it is the text"),
        ({"file": "a.wav", "words": "one"}, "no row has a text or a caption, and these columns are not used: words"),
        ({"file": "a.wav", "text": "", "words": "one"}, "these columns are not used: words"),
        ({"file": "a.wav", "text": "one", "Text": "two"}, "column 'Text' is not used"),
        ({"file": "a.wav", "text": "one", "speeker": "ann"}, "column 'speeker' is not used; if it is the speaker"),
    ],
)
def test_a_column_that_may_be_meant_is_named(folder, row, said):
    with pytest.warns(UserWarning, match=said):
        read_corpus({"kind": "table", "path": write_table(folder / "t.csv", [row])})


# ---- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["text", "caption", "id", "speaker", "kind", "split", "licence", "mood", "file"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "[1, 2]", "true", '{"a": "b"}', "1e999"])
def test_what_is_no_text_is_refused_with_its_line(folder, key, value):
    file = "" if key == "file" else '"file": "a.wav", '
    (folder / "t.jsonl").write_text(f'{{"file": "b.flac", "mood": "x"}}\n\n{{{file}"{key}": {value}}}\n')
    with pytest.raises(UserError, match="t.jsonl, line 3: "):
        read_corpus({"kind": "table", "path": folder / "t.jsonl", "labels": ["mood"]})


def test_numbers_are_texts_and_null_is_none(folder):
    lines = [
        {"file": "a.wav", "text": 371, "speaker": 5.0, "id": 1.5, "caption": None},
        {"file": "b.flac", "text": " "},
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = read_corpus({"kind": "table", "path": folder / "t.jsonl"})
    assert (first.text, first.speaker, first.id, first.caption, second.text) == ("371", "5", "1.5", "", "")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"file": "https://x.org/a.wav"}, "is an address, not a file; download it"),
        ({"file": "s3://x/a.wav"}, "is an address"),
        ({"file": "."}, "is no ordinary file"),
        ({"file": "pipe"}, "is no ordinary file"),
        ({"file": "/dev/zero"}, "is no ordinary file"),
        ({"file": "a.wav", "position": "-1"}, "position '-1' is not a whole number from 0"),
        ({"file": "a.wav", "position": "1_0"}, "position '1_0'"),
        ({"file": "a.wav", "position": "9" * 40}, "position '999"),
        ({"file": "a.wav", "kind": "speach"}, "kind 'speach' is not one of"),
        ({"file": "a.wav", "split": "validation"}, "split 'validation' is not one of"),
        ({"file": "a.wav", "id": "a\tb"}, "cannot be shown"),
        ({"file": "a.wav", "id": "\x1b[31m"}, "cannot be shown"),
        ({"file": "a.wav", "id": "b.flac"}, "two clips are called 'b.flac': .*b.flac .*t.csv, line 2. and .*a.wav"),
    ],
)
def test_a_row_that_names_nothing_usable(folder, row, fault):
    os.mkfifo(folder / "pipe")
    rows = [{"file": "b.flac", "text": "one", **dict.fromkeys(row.keys() - {"file"}, "")}]
    rows += [{"file": "c.wav", "text": "two\nlines", **dict.fromkeys(row.keys() - {"file"}, "")}]
    with pytest.raises(UserError, match=f"t.csv, line 5: .*{fault}"):
        read_corpus({"kind": "table", "path": write_table(folder / "t.csv", [*rows, {"text": "", **row}])})


def test_files_may_lie_anywhere_and_one_may_be_missing(folder):
    (folder / "below").mkdir()
    rows = [{"file": "../a.wav"}, {"file": str(folder / "b.flac")}, {"file": "gone.wav"}]
    clips = read_corpus({"kind": "table", "path": write_table(folder / "below" / "t.csv", rows)})
    assert [os.path.isfile(clip.path) for clip in clips] == [True, True, False]
    with pytest.raises(UserError, match="line 2: the audio file .*gone.wav does not exist; correct the name or audio_"):
        read_corpus({"kind": "table", "path": write_table(folder / "t.csv", rows[2:])})


# ---- folders -----------------------------------------------------------------------------------------------------


def test_spoken_digits_in_any_case_and_nothing_hidden(tmp_path):
    names = ["1_ann_0.wav", "2_ann_0.WAV", "3_ann_0.Wav", "4_ann_0.flac", "._1_ann_0.wav", ".5_ann_0.wav", "Thumbs.db"]
    for name in [*names, "6_ann_0.m4a", "README.md"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "7_ann_0.wav").write_bytes(b"")
    with pytest.warns() as told:
        clips = read_corpus({"kind": "spoken_digits", "path": tmp_path})
    assert [clip.text for clip in clips] == ["one", "two", "three", "four"]
    said = "\n".join(str(warning.message) for warning in told)
    assert "1 files such as 6_ann_0.m4a are not read" in said and "1 sound files in folders below" in said
    with pytest.raises(UserError, match="1 lie in folders below it"):
        (tmp_path / "top" / "deep").mkdir(parents=True)
        (tmp_path / "top" / "deep" / "7_ann_0.wav").write_bytes(b"")
        read_corpus({"kind": "spoken_digits", "path": tmp_path / "top"})
    (tmp_path / "1_ann_0.WAV").write_bytes(b"")
    with pytest.warns(), pytest.raises(UserError, match="two clips are called '1_ann_0'"):
        read_corpus({"kind": "spoken_digits", "path": tmp_path})
