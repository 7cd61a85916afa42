"""The command that scores an ALMTokenizer at several windows, on a tiny one with random weights."""

import json
import sys

import pytest

from codec.io.errors import UserError
from tests.benchmarks.test_decode_steps import TASK
from tests.factories.evaluation import write_corpus
from tests.factories.one_stream.almtokenizer import small_almtokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    write_corpus(folder / "corpus", train=1, test=2)
    small_almtokenizer().save_pretrained(folder / "codec")
    (folder / "tones.yaml").write_text(TASK)
    places = {"--codec": "codec", "--corpus": "corpus", "--tasks": "tones.yaml"}
    return [part for option, name in places.items() for part in (option, str(folder / name))]


def command(benchmark_module, monkeypatch, capsys, *arguments) -> tuple[int, list[dict], str]:
    """Exit code, lines and messages."""
    monkeypatch.setattr(sys, "argv", ["almtokenizer_windows.py", "--threads", "1", "--processes", "1", *arguments])
    code = benchmark_module("almtokenizer_windows").main()
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


def test_rows_of_the_windows(benchmark_module, monkeypatch, capsys, folder):
    code, rows, shown = command(benchmark_module, monkeypatch, capsys, *folder, "--windows", "2", "10", "--limit", "3")
    assert code == 0 and "Tones, 3 clips" in shown
    originals, two, ten = rows
    assert originals["codec"] == "originals" and (two["hz"], ten["hz"]) == (37.5, 7.5)
    assert two["bits_per_second"] == 37.5 * 3 * 6 and two["positions_per_minute"] > 1.1 * ten["positions_per_minute"]
    assert two["mel distance"]["n"] == 3 and two["mel distance"]["value"] != ten["mel distance"]["value"]


def test_a_window_that_training_never_drew_is_refused(benchmark_module, monkeypatch, capsys, folder):
    with pytest.raises(UserError, match="choose 2 to 10"):
        command(benchmark_module, monkeypatch, capsys, *folder, "--windows", "12", "--limit", "1")
