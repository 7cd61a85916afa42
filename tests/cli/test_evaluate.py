"""`uniaudio evaluate`: what it hands to the suite."""

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.fixture
def asked(monkeypatch):
    """The arguments of the suite, which does not run."""
    seen = {}
    monkeypatch.setattr("evaluation.run_suite.run", lambda **arguments: seen.update(arguments))
    monkeypatch.delenv("UNIAUDIO_MODEL", raising=False)
    return seen


def evaluate(*arguments: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 0, result.output


def test_without_a_word_the_demo_is_evaluated(asked):
    evaluate()
    assert asked["model"] == "runs/demo/model" and asked["suite"] == ["starter"] and asked["codec"] is None


def test_a_codec_alone_needs_no_model(asked):
    evaluate("--codec", "folder", "--suite", "codec_real", "--corpus", "a", "--corpus", "b.yaml")
    assert asked["model"] is None and str(asked["codec"]) == "folder"
    assert [str(path) for path in asked["corpora"]] == ["a", "b.yaml"]


def test_a_model_with_another_codec(asked):
    evaluate("--model", "m", "--codec", "c", "--shots", "0", "--shots", "4")
    assert asked["model"] == "m" and str(asked["codec"]) == "c" and asked["shots"] == [0, 4]
