"""Whole evaluations of a codec, and what people, disks and file names do to them."""

import errno
import json
import os
import re
import threading

import pytest

from codec.io.errors import UserError
from codec.io.locks import locked
from evaluation.items import ItemBuilder
from evaluation.recordings import Recordings
from evaluation.runner import CodecRunner
from evaluation.task import load_task
from tests.factories.evaluation import codec_suite, corpus_of, run

ONE = {"limit": None, "untrained_limit": 0, "processes": 1}


@pytest.fixture(scope="module")
def codec(model):
    return model / "audio_tokenizer"


def two_tones(codec, folder):
    """What to run: two clips, into the folder o."""
    sounds = corpus_of(folder / "c", "a", "b")
    return {"codec": codec, "suite": codec_suite(folder), "corpus": [sounds], "out": folder / "o"}


def test_damaged_outputs_are_made_again_and_counted_once(codec, tmp_path):
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a", "b")],
        "out": tmp_path / "o",
    }
    first = run(**asked, **ONE)
    entries = sorted(path for path in (tmp_path / "o" / "cache").rglob("*") if path.is_file())
    assert len(entries) == 4
    for path, damage in zip(entries, (b"", None, b"{}", b"\0" * 100), strict=True):
        path.write_bytes(path.read_bytes()[:-9] if damage is None else damage)
    (entries[0].parent / ".tmp-1-abcdef01").write_bytes(b"left by a kill")
    with pytest.warns(UserWarning, match="cache: 4 damaged outputs were made again"):
        again = run(**asked, **ONE)
    assert again["tasks"][0]["scores"] == first["tasks"][0]["scores"] and again["cache"]["misses"] == 4
    assert not list((tmp_path / "o").rglob(".tmp-*")) and not list((tmp_path / "o").rglob(".lock"))


def test_a_folder_has_one_evaluation_at_a_time(codec, tmp_path):
    asked = {"codec": codec, "suite": codec_suite(tmp_path), "corpus": [corpus_of(tmp_path / "c", "a")]}
    with locked(tmp_path / "o", "another evaluation"):
        with pytest.raises(UserError, match=f"in use by another evaluation, process {os.getpid()} on "):
            run(**asked, out=tmp_path / "o", **ONE)
        run(**asked, out=tmp_path / "p", **ONE)


def test_a_full_disk_is_one_sentence_and_what_was_done_stays(codec, tmp_path, monkeypatch):
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a", "b")],
        "out": tmp_path / "o",
    }
    write, written = os.fsync, []

    def full(handle):  # at the second file that is to last
        written.append(handle)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"/o/.*: No space left on device; make room"):
        run(**asked, **ONE)
    assert not list((tmp_path / "o").rglob(".tmp-*")) and not (tmp_path / "o" / "results.json").exists()
    monkeypatch.setattr(os, "fsync", write)
    assert run(**asked, **ONE)["cache"]["misses"] == 0


def test_a_file_where_the_folder_should_be(codec, tmp_path):
    (tmp_path / "o").write_text("mine")
    with pytest.raises(UserError, match="o: is a file; give a folder with --out"):
        run(
            codec=codec,
            suite="codec_reconstruction",
            corpus=[corpus_of(tmp_path / "c", "a")],
            out=tmp_path / "o",
            **ONE,
        )
    assert (tmp_path / "o").read_text() == "mine"


def test_other_peoples_results_stay(codec, tmp_path):
    asked = {"codec": codec, "suite": codec_suite(tmp_path), "corpus": [corpus_of(tmp_path / "c", "a")]}
    (tmp_path / "results.json").write_text('{"mine": 1}')
    for force in (False, True):
        with pytest.raises(UserError, match="results.json: not the results of an evaluation"):
            run(**asked, out=tmp_path, force=force, **ONE)
    assert (tmp_path / "results.json").read_text() == '{"mine": 1}' and not (tmp_path / "report.html").exists()


TITLES = [
    "a | b",
    "two\nlines",
    "<script>alert(1)</script>",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "x" * 100_000,
    "`code` \\| **b**",
]


@pytest.mark.parametrize("title", TITLES)
def test_no_title_breaks_a_table_or_a_page(codec, model, tmp_path, title):
    from tests.evaluation.report.test_write import Reader

    # an id that cannot be shown is refused when the corpus is read
    sounds = corpus_of(tmp_path / "c", title[:50] if title.isprintable() else "a")
    run(codec=codec, suite=codec_suite(tmp_path, title=title), corpus=[sounds], out=tmp_path / "o", **ONE)
    rows = (tmp_path / "o" / "results.md").read_text().splitlines()[:3]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1
    page = (tmp_path / "o" / "report.html").read_text()
    assert "script" not in Reader(page).tags
    for text in (page, (tmp_path / "o" / "results.md").read_text()):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text) and len(text) < 600_000
    assert json.loads((tmp_path / "o" / "results.json").read_text())["tasks"][0]["title"] == title


def test_a_reader_of_the_progress_that_goes_does_not_stop_the_evaluation(codec, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.report.progress.say", lambda line: (_ for _ in ()).throw(BrokenPipeError()))
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a")],
        "out": tmp_path / "o",
    }
    assert run(**asked, **ONE, quiet=False)["tasks"][0]["n"] == 1


@pytest.mark.parametrize(
    ("task", "fields", "said"),
    [
        ("codec_sound", {"labels": {"genre": "x"}}, "'codec_sound' needs the label 'class', which none of the 2 clips"),
        ("codec_sound", {}, "(their labels: none)"),
        ("codec_sound", {"labels": {"class": ""}}, "needs the label 'class'"),
        ("codec_sound", {"split": "train", "labels": {"class": "x"}}, "of sound there are 2 in split 'train'"),
        ("codec_music", {}, "of music there are none"),
        ("codec_digits", {}, "'codec_digits' finds no clip of speech in split 'test', content = digits"),
        ("sound_caption", {"labels": {"class": "dog"}}, "the label 'class' apart, of which the store has 1 (dog)"),
        ("sound_2_way", {"labels": {"class": "dog"}}, "the label 'class' apart, of which the store has 1 (dog)"),
        ("sound_question", {"labels": {"class": "7"}}, "of which the store has 1 (7)"),
    ],
)
def test_what_a_store_lacks_is_named(tmp_path, task, fields, said):
    questions = ItemBuilder(Recordings([corpus_of(tmp_path / "c", "a", "b", **fields)]))
    with pytest.raises(UserError) as error:
        questions.positions(load_task(task), None)
    assert said in str(error.value) and task in str(error.value)


def test_clips_without_what_a_request_needs_are_named(tmp_path):
    sounds = corpus_of(tmp_path / "c", "a", "b", labels={"class": "dog"})
    lines = (sounds / "clips.jsonl").read_text().splitlines()
    (sounds / "clips.jsonl").write_text("\n".join([lines[0], lines[1].replace("dog", "cat")]))
    with pytest.raises(UserError, match="no clip that can serve the request 'sound_caption' among the 2 of sound"):
        ItemBuilder(Recordings([sounds])).positions(load_task("sound_caption"), None)


def test_a_program_in_another_thread_may_evaluate(codec, tmp_path):
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a")],
        "out": tmp_path / "o",
    }
    found = []
    thread = threading.Thread(target=lambda: found.append(run(**asked, **ONE)))
    thread.start()
    thread.join()
    assert found[0]["tasks"][0]["n"] == 1


def test_a_kill_in_the_middle_goes_on(codec, tmp_path, monkeypatch):
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a", "b")],
        "out": tmp_path / "o",
    }
    encode = CodecRunner.encode

    def dies(self, *arguments):
        encode(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(CodecRunner, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        run(**asked, **ONE)
    monkeypatch.setattr(CodecRunner, "encode", encode)
    assert run(**asked, **ONE)["cache"] == {"hits": 2, "misses": 2}
