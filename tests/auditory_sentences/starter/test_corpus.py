"""The starter corpus: a folder that is reproducible, goes on where it was cut off, and mends itself."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.phones import PHONES_FILE, phones_of
from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.starter import corpus
from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import SMALL, StarterSize
from codec.io.errors import UserError
from codec.io.locks import locked


def tree(folder):
    """Hash of every file but the manifest's own temporary ones, by name."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_the_folder_is_a_corpus_of_24_khz_mono_files(small):
    clips = read_corpus(small)
    assert len(clips) == json.loads((small / "manifest.json").read_text())["clips"] > 30
    assert {clip.kind for clip in clips} == {"speech", "sound", "music", "mixture"}
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        wave, _ = soundfile.read(clip.path)
        assert 0.05 < np.abs(wave).max() <= 0.951 and 0.3 < info.duration < 12
        assert clip.caption and clip.labels and clip.licence == "CC0-1.0" and clip.source
        assert bool(clip.text) == bool(clip.speaker) == (clip.kind in ("speech", "mixture"))


def test_the_number_of_processes_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_BATCH", 4)
    size = StarterSize(speech=6, sound=6, music=2, mixtures=1, recordings=1, held_out=0, voices=8)
    one, three = (synthesise(tmp_path / str(n), seed=3, size=size, processes=n) for n in (1, 3))
    assert len(tree(one)) > 20 and tree(one) == tree(three)


def test_a_finished_corpus_is_recognised(small):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    synthesise(small, seed=3, size=SMALL)
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"size": StarterSize(speech=1)}])
def test_a_folder_with_another_corpus_is_refused(small, change):
    before = tree(small)
    with pytest.raises(UserError, match="another seed or size"):
        synthesise(small, **({"seed": 3, "size": SMALL} | change))
    assert tree(small) == before


def test_a_changed_list_of_clips_is_noticed(tmp_path):
    size = StarterSize(speech=0, sound=2, music=0, mixtures=0, recordings=0, held_out=0)
    synthesise(tmp_path / "c", size=size, processes=1)
    with (tmp_path / "c" / "clips.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="was changed since"):
        synthesise(tmp_path / "c", size=size, processes=1)


def test_a_synthesis_killed_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_BATCH", 4)
    size = StarterSize(speech=4, sound=24, music=2, mixtures=1, recordings=1, held_out=0, voices=8)
    program = f"""
from auditory_sentences.starter import corpus
from auditory_sentences.starter.jobs import StarterSize
corpus._BATCH = 4
corpus.synthesise({str(tmp_path / "killed")!r}, 1, {size!r}, processes=1)
"""
    marks = tmp_path / "killed" / "parts"
    seen = []
    for goal in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(marks.glob("*.jsonl"))) < goal:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(list(marks.glob("*.jsonl"))))
    assert 1 <= seen[0] <= seen[1] and not (tmp_path / "killed" / "manifest.json").exists()
    with pytest.raises(UserError, match="another seed or size"):
        synthesise(tmp_path / "killed", 2, size, 1)
    whole = synthesise(tmp_path / "whole", 1, size, 1)
    assert tree(synthesise(tmp_path / "killed", 1, size, 1)) == tree(whole)


TINY = StarterSize(speech=3, sound=2, music=0, mixtures=0, recordings=0, held_out=0, voices=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("starter") / "tiny", size=TINY, processes=1)


@pytest.fixture
def own(tiny, tmp_path):
    """A tiny corpus to damage."""
    return shutil.copytree(tiny, tmp_path / "own")


def test_every_sound_file_is_in_the_list_of_hashes(own):
    lines = (own / "audio.sha256").read_text().splitlines()
    assert [f"{hashlib.sha256((own / line[66:]).read_bytes()).hexdigest()}  {line[66:]}" for line in lines] == lines
    assert sorted(line[66:] for line in lines) == sorted(f"audio/{path.name}" for path in (own / "audio").iterdir())


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "flipped", "folder removed"])
def test_a_sound_file_that_is_lost_or_damaged_is_made_again(own, tiny, damage):
    file = sorted((own / "audio").iterdir())[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    elif damage == "folder removed":
        shutil.rmtree(own / "audio")
    else:
        file.write_bytes({"emptied": b"", "cut": content[:1000], "flipped": content}[damage])
    with pytest.warns(UserWarning, match="sound files were lost or damaged and are made again, audio/"):
        synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny)


def test_a_corpus_from_before_there_were_hashes_is_complete_if_its_files_are_there(own, tiny):
    (own / "audio.sha256").unlink()
    manifest = json.loads((own / "manifest.json").read_text())
    del manifest["audio_sha256"]
    (own / "manifest.json").write_text(json.dumps(manifest))
    before = tree(own)
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == before
    file = min((own / "audio").iterdir())
    file.unlink()
    with pytest.warns(UserWarning, match=file.name):
        synthesise(own, size=TINY, processes=1)
    assert file.read_bytes() == (tiny / "audio" / file.name).read_bytes()


def test_every_clip_of_speech_and_no_other_has_phone_times(small):
    clips = read_corpus(small)
    found = phones_of(clips)
    assert set(found) == {clip.id for clip in clips if clip.kind == "speech"}
    assert all(0.03 < p[0].start and p[-1].end < soundfile.info(small / "audio" / f"{i}.flac").duration
               for i, p in found.items())  # fmt: skip


@pytest.mark.parametrize("before", ["removed", "changed", "an earlier version's"])
def test_phone_times_that_are_not_there_are_written_and_no_sound_is_touched(own, tiny, before):
    manifest = json.loads((own / "manifest.json").read_text())
    if before == "changed":
        (own / PHONES_FILE).write_text("")
    else:
        (own / PHONES_FILE).unlink()
    if before == "an earlier version's":
        del manifest["phones_sha256"]
        (own / "manifest.json").write_text(json.dumps(manifest))
    times = {p: p.stat().st_mtime_ns for p in own.rglob("*.flac")}
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny) and times == {p: p.stat().st_mtime_ns for p in own.rglob("*.flac")}


@pytest.mark.parametrize("name", ["clips.jsonl", "audio.sha256"])
def test_a_list_that_is_lost_is_named(own, name):
    (own / name).unlink()
    with pytest.raises(UserError, match=f"{name}: is lost .*another folder"):
        synthesise(own, size=TINY, processes=1)


@pytest.mark.parametrize("content", ["", "{", "[1]", "5", "{}", '{"version": 1}', '{"a": NaN}', "x" * 100], ids=str)
def test_a_manifest_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "clips.jsonl").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="manifest.json.*another folder"):
        synthesise(tmp_path, size=TINY, processes=1)
    assert tree(tmp_path) == before


def test_a_folder_that_holds_something_is_never_written_to(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other files .'audio' ....; give a new or an empty folder"):
        synthesise(tmp_path, size=TINY, processes=1)
    with pytest.raises(UserError, match="mine.wav: is a file"):
        synthesise(tmp_path / "audio" / "mine.wav", size=TINY, processes=1)
    assert len(tree(tmp_path)) == 1


def test_what_killed_runs_left_is_removed_and_half_written_parts_are_done_again(own, tiny):
    (own / "request.json").write_text(json.dumps({"version": 1, "seed": 0, "size": TINY.values}))
    (own / "manifest.json").unlink()
    (own / "parts").mkdir()
    (own / "parts" / "00000.jsonl").write_text('{"id": "of an older version"}\n')
    (own / "parts" / ".tmp-1-a.jsonl").write_text("scrap")
    (own / "audio" / ".tmp-1-a.flac").write_text("scrap")
    (own / ".tmp-1-a.json").write_text("scrap")
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny)
    (own / "parts").mkdir()  # and of one that was killed when all was done
    (own / "audio" / ".tmp-1-a.flac").write_text("scrap")
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny) and not (own / "parts").exists()


def test_one_writer(own):
    (own / "audio" / "train-sound-00000.flac").unlink()
    with locked(own, "a test"), pytest.raises(UserError, match=f"in use by a test, process {os.getpid()}"):
        synthesise(own, size=TINY, processes=1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**63}, {"seed": 1.0}, {"processes": 0}, {"processes": 999}])
def test_seeds_and_numbers_of_processes_have_a_range(tmp_path, wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be a whole number from"):
        synthesise(tmp_path / "c", **{"size": TINY, "processes": 1} | wrong)
    assert not (tmp_path / "c").exists()
