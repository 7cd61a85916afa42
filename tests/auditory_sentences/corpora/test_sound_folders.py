"""Folders of sounds in the form that `datasets` documents."""

import pytest

from auditory_sentences.corpora.read import read_corpus
from codec.io.errors import UserError


@pytest.fixture
def sounds(tmp_path):
    """Empty sound files d/train/a.wav, d/train/B.WAV, d/test/c.flac, and what is none."""
    for name in ("train/a.wav", "train/B.WAV", "test/c.flac", "train/._a.wav", "train/.DS_Store", "train/notes.txt"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(b"")
    return tmp_path / "d"


def folder_of(sounds, split="train", **more):
    return read_corpus({"kind": "dataset", "path": sounds, "source_split": split, **more})


def test_a_folder_of_sounds_with_metadata(sounds):
    (sounds / "train" / "metadata.csv").write_text("file_name,text\na.wav,one\nB.WAV,two\n")
    (sounds / "test" / "metadata.jsonl").write_text('{"file_name": "c.flac", "transcription": "three"}\n')
    clips = folder_of(sounds)
    assert [(clip.id, clip.text) for clip in clips] == [("train/a.wav", "one"), ("train/B.WAV", "two")]
    assert clips[0].path == str(sounds / "train" / "a.wav")
    (sounds / "train" / "metadata.csv").unlink()
    with pytest.warns(UserWarning, match="'transcription' as text"):
        (clip,) = folder_of(sounds, "test")
    assert clip.text == "three"
    with pytest.warns(UserWarning, match="2 sound files that no metadata name"):
        folder_of(sounds, "test", columns={"text": "transcription"})
    with pytest.raises(UserError, match="d: has no split 'dev', only test"):
        folder_of(sounds, "dev")


def test_a_folder_of_sounds_by_class(sounds):
    assert [clip.labels for clip in folder_of(sounds, labels=["label"])] == [{"label": "train"}] * 2
    for name in ("bell/x.wav", "rain/y.wav"):
        (sounds.parent / "e" / name).parent.mkdir(parents=True)
        (sounds.parent / "e" / name).write_bytes(b"")
    clips = folder_of(sounds.parent / "e", labels=["label"], clip_kind="sound")
    assert [(clip.id, clip.labels) for clip in clips] == [
        ("bell/x.wav", {"label": "bell"}), ("rain/y.wav", {"label": "rain"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("metadata.csv", "name,text\na.wav,one\n", "metadata.csv: has no column 'file_name'"),
        ("metadata.csv", "file_name,text\n,one\n", "line 2: file_name is empty"),
        ("metadata.csv", 'file_name,text\na.wav,"one\n', "line 2: "),
        ("metadata.jsonl", '{"file_name": 5}\n', "line 1: file_name is empty or no text"),
        ("metadata.jsonl", "[1]\n", "line 1: must be a JSON object"),
        ("metadata.csv", "file_name\nhttp://x/a.wav\n", "is an address"),
    ],
)
def test_metadata_that_do_not_serve(sounds, name, content, fault):
    (sounds / "train" / name).write_text(content)
    with pytest.raises(UserError, match=fault):
        folder_of(sounds)
