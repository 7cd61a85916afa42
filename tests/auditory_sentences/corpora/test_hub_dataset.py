"""Corpora that `datasets` reads."""

import datasets
import pytest

from auditory_sentences.corpora.read import read_corpus
from codec.audio.waveform import load_audio
from codec.io.errors import UserError


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


# ---- what `datasets` cannot do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["parquet", "arrow", "zip", "csv", "json", "tar", "txt"])
def test_damaged_files_of_a_dataset_are_one_sentence(tmp_path, monkeypatch, capfd, ending):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f"train.{ending}").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UserError, match="/d: ") as error:
        read_corpus(SPEC | {"path": tmp_path / "d"})
    assert "\n" not in str(error.value) and capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json", "dataset_info.json"])
def test_a_damaged_saved_dataset_is_one_sentence(folder, dataset, name):
    datasets.DatasetDict(train=dataset).save_to_disk(folder / "saved")
    for found in (folder / "saved").rglob(name):
        found.write_text('{"a": [')
    with pytest.raises(UserError, match="saved: `datasets` cannot load it"):
        read_corpus(SPEC | {"path": folder / "saved"})


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([1.5, 2.5], "column 'audio' holds Value.*float64.*no sound"),
        ([[1, 2], [3]], "column 'audio' holds .*no sound"),
        (["gone.wav", "b.wav"], "row 0: holds no sound and no path"),
        ([None, None], "column 'audio' holds .*null.*no sound"),
    ],
)
def test_a_column_that_is_no_sound(folder, values, fault):
    datasets.Dataset.from_dict({"audio": values, "sentence": ["a", "b"], "tone": ["x", "y"]}).save_to_disk(folder / "d")
    with pytest.raises(UserError, match=fault):
        read_corpus(SPEC | {"path": folder / "d"})


def test_values_of_a_dataset_that_are_no_text(folder, dataset):
    for text in ([float("nan"), 1.0], [[1], [2]], [True, False]):
        data = dataset.remove_columns("sentence").add_column("sentence", text)
        data.save_to_disk(folder / f"saved{text[1]}")
        with pytest.raises(UserError, match="row 0: 'sentence' must be text"):
            read_corpus(SPEC | {"path": folder / f"saved{text[1]}", "audio_folder": folder / "unpacked"})


def test_sound_is_unpacked_by_its_content(folder, dataset):
    """Two datasets share a folder, and what a kill left half written is written again."""
    both = []
    for name in ("a.wav", "c.wav"):
        content = (folder / name).read_bytes()
        data = datasets.Dataset.from_dict({"audio": [{"bytes": content, "path": "../../same.wav"}], "text": ["one"]})
        data.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(folder / f"set-{name}")
        spec = {
            "kind": "dataset",
            "path": folder / f"set-{name}",
            "source_split": "train",
            "audio_folder": folder / "u",
        }
        (clip,) = read_corpus(spec)
        assert open(clip.path, "rb").read() == content
        open(clip.path, "wb").write(content[:100])
        assert open(read_corpus(spec)[0].path, "rb").read() == content
        both.append(clip.path)
    assert len(set(both)) == 2 == len(list((folder / "u").iterdir()))


def test_what_is_not_there_is_not_asked_of_the_hub(folder, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    for path, fault in (("nowhere", "no such folder"), ("a/b/c", "no such folder"), (folder / "a.wav", "is a file")):
        with pytest.raises(UserError, match=fault):
            read_corpus(SPEC | {"path": path})
