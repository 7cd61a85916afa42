"""One task from items to its entry: files of its own, recordings that are missing, a cache that fails."""

import pytest

from codec.io.errors import UserError
from tests.factories.evaluation import codec_suite, corpus_of, run, samples_in

ONE = {"limit": None, "untrained_limit": 0, "processes": 1}


@pytest.fixture(scope="module")
def codec(model):
    return model / "audio_tokenizer"


ODD = [
    "a/b_20",
    "a_b/20",
    "a_b_20",
    "A_b_20",
    "../../up",
    "/abs",
    "x" * 300,
    "con",
    "日本",
    "é",
    "..",
]


def test_every_clip_has_a_file_of_its_own_within_the_folder(codec, tmp_path):
    out = tmp_path / "deep" / "er" / "out"
    sounds = corpus_of(tmp_path / "corpus", *ODD)
    asked = codec_suite(tmp_path)
    before = set(tmp_path.rglob("*"))
    run(codec=codec, suite=asked, corpus=[sounds], out=out, **ONE)
    samples = samples_in(out)
    made = {sample["id"]: (out / sample["audio"]).resolve() for sample in samples}
    assert set(made) == set(ODD) and len({str(path).lower() for path in made.values()}) == len(ODD)
    assert all(path.is_relative_to(out) and path.is_file() for path in made.values())
    assert all(
        path.is_relative_to(tmp_path / "deep")
        for path in set(tmp_path.rglob("*")) - before - {tmp_path / "suite.yaml", tmp_path / "task.yaml"}
    )
    assert len(list((out / "audio").rglob("*.flac"))) == len(ODD)


def test_recordings_that_cannot_be_read_are_left_out_and_listed(codec, tmp_path):
    sounds = corpus_of(tmp_path / "c", "whole", "gone", "text", "empty")
    (sounds / "1.wav").unlink()
    (sounds / "2.wav").write_text("no sound")
    (sounds / "3.wav").write_bytes(b"")
    asked = {"codec": codec, "suite": codec_suite(tmp_path), "corpus": [sounds]}
    (task,) = run(**asked, out=tmp_path / "o", **ONE)["tasks"]
    assert task["n"] == 1 and {one["id"] for one in task["unreadable"]} == {"gone", "text", "empty"}
    for name in ("results.md", "report.html"):
        assert "3 recordings unreadable" in (tmp_path / "o" / name).read_text()
    (sounds / "0.wav").unlink()
    with pytest.raises(UserError, match="none of the 4 recordings of the task 'mine' can be read .*0.wav|--corpus"):
        run(**asked, out=tmp_path / "p", **ONE)
    assert not (tmp_path / "p").exists()


def test_a_cache_that_cannot_be_written_stops_the_run_instead_of_skipping_its_tasks(codec, tmp_path):
    asked = {
        "codec": codec,
        "suite": codec_suite(tmp_path),
        "corpus": [corpus_of(tmp_path / "c", "a")],
        "out": tmp_path / "o",
    }
    run(**asked, **ONE)
    for entry in [path for path in (tmp_path / "o" / "cache").rglob("*") if path.is_file()]:
        entry.unlink()
        entry.mkdir()
    with pytest.raises(UserError, match="/o/cache/.*: is no ordinary file"):
        run(**asked, **ONE)
