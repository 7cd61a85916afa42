"""Results: nothing that is there is lost, and a place that cannot be is refused before the work begins."""

import os

import pytest

from cli import options
from cli.results import sound_result, token_result
from codec.io.errors import UserError


@pytest.fixture
def codec(model_folder):
    return model_folder / "audio_tokenizer"


@pytest.fixture
def recording(tone, tmp_path):
    path = tmp_path / "recording.wav"
    path.write_bytes(tone.read_bytes())
    return path


def test_default_names_never_meet_the_recording(uniaudio, codec, recording):
    before, folder = recording.read_bytes(), recording.parent
    for place in ("recording.safetensors", "recording-2.safetensors"):
        assert place in uniaudio("tokenize", recording, "--codec", codec).out
    for place in ("recording.decoded.wav", "recording.decoded-2.wav"):
        done = uniaudio("detokenize", folder / "recording.safetensors", "--codec", codec, "--steps", 1)
        assert done.status == 0 and place in done.out
    assert recording.read_bytes() == before and len(list(folder.iterdir())) == 5
    same = uniaudio("tokenize", recording, "--codec", codec, "--force")
    assert "recording.safetensors" in same.out and len(list(folder.iterdir())) == 5


def test_a_usual_name_that_is_taken_gives_way(uniaudio, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "speech.wav").write_text("precious")
    speak = ("speak", "one", "--model", model_folder, "--max-seconds", 0.2, "--steps", 1)
    assert "speech-2.wav" in uniaudio(*speak).out and "speech-3.wav" in uniaudio(*speak).out
    assert (tmp_path / "speech.wav").read_text() == "precious"
    assert "speech.wav " in uniaudio(*speak, "--force").out and (tmp_path / "speech.wav").read_bytes()[:4] == b"RIFF"


@pytest.fixture
def no_loading(monkeypatch):
    """A verb that begins to work fails the test."""
    for name in ("load_model", "load_codec"):
        for module in ("generate", "tokens", "chat", "understand"):
            monkeypatch.setattr(f"cli.{module}.{name}", lambda path: pytest.fail("work began"), raising=False)


def places(folder):
    (folder / "file").write_text("precious")
    (folder / "taken.wav").write_text("precious")
    (folder / "taken.safetensors").write_text("precious")
    (folder / "link.wav").symlink_to(folder / "taken.wav")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    taken = ["taken", "link", "dangling", "pipe", "folder", "file/x", "file/deeper/x", "n" * 300, "file"]
    return [f"{name}.wav" if name != "file" else name for name in taken]


@pytest.mark.parametrize("verb", ["speak", "compose", "detokenize"])
def test_places_for_sound_are_refused_before_the_work(uniaudio, no_loading, recording, tmp_path, verb):
    for name in places(tmp_path):
        done = uniaudio(verb, recording, "-o", tmp_path / name)
        assert done.status == 2 and len(done.err.splitlines()) == 1 and name[-20:] in done.err, name
    assert (tmp_path / "taken.wav").read_text() == (tmp_path / "file").read_text() == "precious"


def test_places_for_tokens_are_refused_before_the_work(uniaudio, no_loading, recording, tmp_path):
    (tmp_path / "link.safetensors").symlink_to(recording)
    (tmp_path / "hard.safetensors").hardlink_to(recording)
    before = recording.read_bytes()
    for name in [*places(tmp_path), "taken.safetensors"]:
        done = uniaudio("tokenize", recording, "-o", tmp_path / name)
        assert done.status == 2 and len(done.err.splitlines()) == 1, name
    for name in ("recording.wav", "link.safetensors", "hard.safetensors", "../" + tmp_path.name + "/recording.wav"):
        done = uniaudio("tokenize", recording, "-o", tmp_path / name, "--force")
        assert done.status == 2 and "is what is read" in done.err
    assert recording.read_bytes() == before and (tmp_path / "taken.safetensors").read_text() == "precious"


def test_a_chat_folder_that_is_a_file_is_refused_before_the_work(uniaudio, no_loading, tmp_path):
    (tmp_path / "file").write_text("precious")
    done = uniaudio("chat", "--out", tmp_path / "file", typed="/say one\n")
    assert done.status == 2 and "is not a folder" in done.err and (tmp_path / "file").read_text() == "precious"


def test_missing_folders_are_made_only_for_what_is_written(tmp_path):
    result = token_result(tmp_path / "new/deep/t.safetensors", tmp_path / "x")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="sound is written as"):
        sound_result(tmp_path / "t.ogg", tmp_path / "x.wav")
    with pytest.raises(UserError, match="no name of a file"):
        token_result(options.Path("-"), tmp_path / "x")
    assert result.path == tmp_path / "new/deep/t.safetensors"


@pytest.mark.parametrize("name", [b"\xe9.wav", "録音.wav".encode(), b"two\nlines.wav", b"\x1b[2Jodd.wav", b"-v.wav"])
def test_odd_names_are_tokenised_and_shown_on_one_line(uniaudio, codec, recording, name):
    odd = recording.with_name(os.fsdecode(name))
    recording.rename(odd)
    done = uniaudio("tokenize", odd, "--codec", codec)
    assert done.status == 0 and len(done.out.splitlines()) == 1 and done.out.strip().isprintable(), done
    assert (odd.parent / f"{odd.stem}.safetensors").is_file()
    missing = uniaudio("tokenize", odd.with_name("no" + odd.name), "--codec", codec)
    assert missing.status == 2 and all(c == "\n" or c.isprintable() for c in missing.err)
    assert [line[:9] for line in missing.err.splitlines()][0] == "uniaudio:" and "\nlines" not in missing.err
