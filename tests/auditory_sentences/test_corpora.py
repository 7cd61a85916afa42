"""Corpora: every kind gives the same clips for the same content, and says what is wrong with the rest."""

import csv
import json

import datasets
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.clip import KINDS, SPLITS, Clip
from auditory_sentences.corpora import describe, read_corpora, read_corpus
from codec.audio import load_audio
from codec.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Three short sounds a.wav, b.flac, c.wav."""
    for i, name in enumerate(("a.wav", "b.flac", "c.wav")):
        soundfile.write(tmp_path / name, np.full(2_400 * (i + 1), 0.1), 24_000)
    return tmp_path


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


@pytest.fixture
def dataset(folder, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    columns = {
        "audio": [str(folder / "a.wav"), str(folder / "b.flac")],
        "sentence": ["one", "two"],
        "tone": [1, 0],
        "other": [[1, 2], [3]],
    }
    data = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    return data.cast_column("tone", datasets.ClassLabel(names=["sad", "glad"]))


SPEC = {"kind": "dataset", "source_split": "train", "columns": {"text": "sentence"}, "labels": ["tone"]}


def test_a_dataset_whose_rows_hold_the_sound(folder, dataset):
    embedded = dataset.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)
    embedded.with_format(None).to_parquet(folder / "data" / "train.parquet")
    (folder / "a.wav").rename(folder / "moved.wav")  # the rows must be enough
    (folder / "b.flac").rename(folder / "moved.flac")
    spec = SPEC | {"path": folder / "data", "audio_folder": folder / "unpacked", "split": "test", "licence": "CC0-1.0"}
    for _ in range(2):  # again from what is unpacked
        first, second = read_corpus(spec)
        assert (first.id, first.text, first.labels, first.split) == ("0000000", "one", {"tone": "glad"}, "test")
        assert (second.id, second.text, second.labels) == ("0000001", "two", {"tone": "sad"})
        assert first.path.endswith(".wav") and second.path.endswith(".flac")
        assert load_audio(first.path).shape == (2_400,) and load_audio(second.path).shape == (4_800,)
    with pytest.raises(UserError, match="audio_folder"):
        read_corpus(SPEC | {"path": folder / "data"})


def test_a_saved_dataset_that_points_to_files(folder, dataset):
    datasets.DatasetDict(train=dataset).save_to_disk(folder / "saved")
    read = read_corpus(SPEC | {"path": folder / "saved", "audio_folder": folder / "unpacked"})
    assert [load_audio(clip.path).shape[0] for clip in read] == [2_400, 4_800]
    with pytest.raises(UserError, match="no split 'test', only train"):
        read_corpus(SPEC | {"path": folder / "saved", "source_split": "test"})
    with pytest.raises(UserError, match="no column 'sentense'; did you mean 'sentence'"):
        read_corpus(SPEC | {"path": folder / "saved", "columns": {"text": "sentense"}})


def test_a_dataset_that_cannot_be_had(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route to the hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match="owner/name: `datasets` cannot load it .no route to the hub."):
        read_corpus(SPEC | {"path": "owner/name"})


# ---- what is wrong -----------------------------------------------------------------------------------------------

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
        (json.dumps({**GOOD, "id": "a\tb"}), r"line 2: .*id holds characters that cannot be shown: 'a\\tb'"),
        (json.dumps({**GOOD, "id": " "}), "line 2: .*both id and path must say something"),
        (json.dumps({**GOOD, "path": "https://x.org/a.wav"}), "line 2: .*is an address, not a file"),
        (json.dumps({**GOOD, "path": "a\0b"}), "line 2: .*not a name that a file can have"),
        (json.dumps(GOOD)[:-1] + ', "id": "b"}', "line 2: .*'id' stands twice"),
        ('{"id": NaN}', "line 2: .*NaN"),
        ('{"id": "\\ud800"}', "line 2: .*half a character"),
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
