"""`uniaudio evaluate`: what it hands to the suite, which has the options."""

from dataclasses import fields

import pytest

from codec.io.shipped import STARTER_MODEL
from evaluation.config import EvaluationConfig, parse_config


@pytest.fixture
def asked(monkeypatch):
    """The evaluations that the suite is asked for; it does not run."""
    configs = []
    monkeypatch.setattr("evaluation.run_suite.run", configs.append)
    monkeypatch.delenv("UNIAUDIO_MODEL", raising=False)
    return configs


def test_without_a_word_the_shipped_model_is_evaluated(asked, uniaudio):
    assert uniaudio("evaluate").status == 0
    assert asked == [EvaluationConfig(model=STARTER_MODEL)]


def test_a_codec_alone_needs_no_model(asked, uniaudio):
    given = ["--codec", "folder", "--suite", "codec_real", "--corpus", "a", "--corpus", "b.yaml", "c"]
    assert uniaudio("evaluate", *given).status == 0
    assert asked == [EvaluationConfig(codec="folder", suite=("codec_real",), corpus=("a", "b.yaml", "c"))]


def test_a_model_with_another_codec(asked, uniaudio, monkeypatch):
    monkeypatch.setenv("UNIAUDIO_MODEL", "m")
    assert uniaudio("evaluate", "--codec", "c", "--shots", "0", "--shots", "4", "7").status == 0
    assert asked == [EvaluationConfig(model="m", codec="c", shots=(0, 4, 7))]


def test_every_option_goes_through_as_it_stands(asked, uniaudio):
    given = [
        "--model", "m", "--suite", "a", "b", "--shots", "1", "--limit", "3", "-o", "out folder", "--force",
        "--store", "s", "--corpus", "c", "--codec=k", "--untrained", "u", "--untrained-limit", "0", "--seed", "5",
        "--processes", "2", "--device", "cpu",
    ]  # fmt: skip
    assert uniaudio("evaluate", *given).status == 0
    expected = EvaluationConfig(
        model="m", suite=("a", "b"), shots=(1,), limit=3, out="out folder", force=True, store=("s",), corpus=("c",),
        codec="k", untrained="u", untrained_limit=0, seed=5, processes=2, device="cpu",
    )  # fmt: skip
    assert asked == [expected] == [parse_config(given, "run_suite.py")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--limit", "0"], "--limit: must be at least 1, not '0'"),
        (["--limit", "4_0"], "--limit: must be an integer"),
        (["--no-such"], "unrecognized arguments: --no-such"),
        (["stray"], "unrecognized arguments: stray"),
        (["--lim", "3"], "unrecognized arguments: --lim 3"),
    ],
)
def test_mistakes_are_one_line_that_names_the_help(asked, uniaudio, arguments, said):
    result = uniaudio("evaluate", *arguments)
    assert result.status == 2 and said in result.err and "`uniaudio evaluate --help`" in result.err
    assert result.err.count("\n") == 1 and not asked


@pytest.mark.parametrize("word", ["compare", "average"])
def test_finished_evaluations_are_read_not_run(asked, uniaudio, word, tmp_path):
    result = uniaudio("evaluate", word, tmp_path / "a", tmp_path / "b")
    assert result.status == 2 and f"{tmp_path / 'a'}: no such folder" in result.err and not asked
    assert result.err.count("\n") == 1
    result = uniaudio("evaluate", word, "--help")
    assert result.status == 0 and result.out.startswith(f"usage: uniaudio evaluate {word}")


def test_help_says_what_every_option_is_for(asked, uniaudio):
    result = uniaudio("evaluate", "--help")
    assert result.status == 0 and result.out.startswith("usage: uniaudio evaluate") and not asked
    listed = result.out.partition("options:")[2]
    assert listed.count("\n  -") == len(fields(EvaluationConfig)) + 1  # and --help
    assert "uniaudio evaluate compare A B" in " ".join(listed.split())


@pytest.mark.parametrize("option", ["--untrained-limit", "--seed", "--shots", "--suite", "--out", "--device"])
def test_two_dashes_are_no_value(uniaudio, option):
    done = uniaudio("evaluate", f"{option}=--")
    assert done.status == 2 and option in done.err and "expected a value" in done.err
