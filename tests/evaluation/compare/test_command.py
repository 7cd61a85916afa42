"""`uniaudio evaluate compare` and `average` as people write them, and what they leave behind."""

import json
import re
import subprocess
import sys

import pytest
import torch

from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from evaluation.run_suite import evaluate
from tests import ROOT
from tests.evaluation.compare.folders import SAID, words_folder
from tests.evaluation.report.test_write import Reader
from tests.factories.evaluation import codec_suite, corpus_of, run, samples_in


@pytest.fixture
def folders(tmp_path):
    a = words_folder(tmp_path / "a", SAID | {"x1": "one <b>two", "x4": "seven eight"})
    return str(a), str(words_folder(tmp_path / "b", SAID | {"x2": ""}))


def command(*arguments):
    evaluate([str(argument) for argument in arguments], "uniaudio evaluate")


def test_a_table_is_printed_and_nothing_written(folders, capsys, tmp_path):
    before = set(tmp_path.rglob("*"))
    command("compare", *folders)
    out = capsys.readouterr().out
    assert f"A: {folders[0]}" in out and set(tmp_path.rglob("*")) == before
    (row,) = (line for line in out.splitlines() if line.startswith("Title of asr"))
    assert re.search(r"40\.0 % +20\.0 % +-20\.0 points +-\d+\.\d to \+\d+\.\d +4 +2 / 1 / 1 +1\.000", row)
    assert "1 difference tested, 0 marked" in out and "one in 20 would be marked by chance, about 0.1 of these 1" in out


def test_the_files_hold_the_same_with_sounds(folders, tmp_path):
    command("compare", *folders, "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    (task,) = found["tasks"]
    assert task["scores"][0]["difference"]["value"] == pytest.approx(-0.2) and found["tested"] == 1
    assert [one["id"] for one in task["better"]] == ["x1", "x4"] and [one["id"] for one in task["worse"]] == ["x2"]
    text = (tmp_path / "out/comparison.md").read_text()
    assert "| Title of asr |" in text and "| x2 | four five | four five | (nothing) | 0.0 % | 100.0 % |" in text
    assert Reader((tmp_path / "out/comparison.html").read_text()).tags.count("audio") == 9


def test_several_runs_of_each_and_their_mean(tmp_path, capsys):
    a = [words_folder(tmp_path / f"a{i}", SAID | {"x1": words}) for i, words in enumerate(("", "one", "two one"))]
    b = [words_folder(tmp_path / f"b{i}", SAID | {"x4": words}) for i, words in enumerate(("", "ten"))]
    command("compare", *a, "--with", *b, "-o", tmp_path / "out")
    assert "means over runs" in capsys.readouterr().out and (tmp_path / "out/comparison.html").is_file()
    command("average", *a, "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert "Mean over 3 runs" in out and str(tmp_path / "out/average.md") in out
    (score,) = json.loads((tmp_path / "out/average.json").read_text())["scores"]
    assert len(score["values"]) == 3 and score["stderr"] > 0


def test_files_that_are_there_are_not_replaced_unasked(folders, tmp_path):
    command("compare", *folders, "--out", tmp_path / "out")
    with pytest.raises(UserError, match="comparison.md: exists already .*--force"):
        command("compare", *folders, "--out", tmp_path / "out")
    command("compare", *folders, "--out", tmp_path / "out", "--force")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare"], "arguments are required: FOLDER"),
        (["compare", "A"], "compares two folders, not 1"),
        (["compare", "A", "B", "C"], "compares two folders, not 3; for several runs of each: A1 A2 A3 --with"),
        (["compare", "A", "A"], "A: is given twice"),
        (["compare", "A", "./A/../A"], "is given twice"),
        (["compare", "A", ""], "a folder must have a name"),
        (["compare", "A", "B", "--out", " "], "--out must name something"),
        (["compare", "A", "B", "--model", "m"], "unrecognized arguments: --model m"),
        (["compare", "nowhere", "elsewhere"], "nowhere: no such folder; give the --out folder of a finished"),
        (["average", "A"], "takes two or more folders"),
        (["average", "A", "B", "--with", "C"], "unrecognized arguments: --with"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        command(*arguments)
    assert said in str(error.value) and "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("word", ["compare", "average"])
def test_help_names_the_command_and_writes_percent_signs(word, capsys):
    with pytest.raises(SystemExit) as stop:
        command(word, "--help")
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.startswith(f"usage: uniaudio evaluate {word}") and "%%" not in out


def test_two_codecs_that_were_evaluated(model, tmp_path, capsys):
    """From clips to the page: what an evaluation writes is what a comparison reads."""
    codec = load_tokenizer(model / "audio_tokenizer")
    with torch.no_grad():
        next(codec.parameters()).mul_(3)
    codec.save_pretrained(tmp_path / "other")
    sounds = corpus_of(tmp_path / "corpus", "one", "two", "three")
    asked = {"suite": codec_suite(tmp_path), "corpus": [sounds], "limit": None, "untrained_limit": 0, "processes": 1}
    first = run(codec=model / "audio_tokenizer", out=tmp_path / "a", **asked)
    run(codec=tmp_path / "other", out=tmp_path / "b", **asked)
    pairs = [sample["predictions"]["mel distance"]["measured"] for sample in samples_in(tmp_path / "a")]
    value = first["tasks"][0]["scores"][0]["value"]
    assert sum(a for a, _ in pairs) / sum(w for _, w in pairs) == pytest.approx(value)
    command("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    found = json.loads((tmp_path / "out/comparison.json").read_text())
    assert found["tasks"][0]["scores"][0]["a"] == pytest.approx([value]) and found["tasks"][0]["n"] == 3
    assert "mel distance" in capsys.readouterr().out


@pytest.mark.slow
def test_run_suite_as_a_file_has_the_same_words(folders):
    done = subprocess.run(
        [sys.executable, ROOT / "evaluation/run_suite.py", "compare", *folders], capture_output=True, text=True
    )
    assert done.returncode == 0 and "1 difference tested" in done.stdout, done.stderr
