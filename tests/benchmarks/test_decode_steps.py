"""The command that scores decoding by number of steps, on a tiny codec with random weights."""

import json
import sys

import pytest

from codec.io.errors import UserError
from tests.factories.evaluation import run, write_corpus
from tests.factories.uniaudio import tiny_codec

TASK = """task: tones
version: 1
title: Tones
about: Voices through the codec and back.
request: reconstruction
data: {kind: speech, split: test}
scores:
  - {name: word error rate, metric: wer, scorer: recogniser, grammar: digits}
  - {name: mel distance, metric: mel_distance, scorer: waveform}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    write_corpus(folder / "corpus", train=1, test=2)
    for seed in (0, 1):
        tiny_codec(seed).save_pretrained(folder / f"codec{seed}")
    (folder / "tones.yaml").write_text(TASK)
    (folder / "suite.yaml").write_text(f"suite: s\ntitle: S\nabout: S.\ntasks: [{folder / 'tones.yaml'}]\n")
    return folder


def command(benchmark_module, monkeypatch, capsys, *arguments) -> tuple[int, list[dict], str]:
    """Exit code, lines and messages."""
    monkeypatch.setattr(sys, "argv", ["decode_steps.py", "--threads", "1", "--processes", "1", *map(str, arguments)])
    code = benchmark_module("decode_steps").main()
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.mark.slow
def test_rows_of_two_codecs_and_the_suites_numbers(benchmark_module, monkeypatch, capsys, folder, tmp_path):
    codecs = folder / "codec0", folder / "codec1"
    arguments = ("--codec", *codecs, "--corpus", folder / "corpus", "--tasks", folder / "tones.yaml")
    code, rows, shown = command(
        benchmark_module, monkeypatch, capsys, *arguments, "--steps", 2, 10, "--guidance", 1, 1.5, "--limit", 3
    )
    assert code == 0 and "Tones, 3 clips" in shown
    originals, *decoded = rows
    assert originals["codec"] == "originals" and originals["mel distance"]["value"] == 0
    assert [(row["codec"], row["guidance"], row["steps"]) for row in decoded] == [
        (str(codec), guidance, steps) for codec in codecs for guidance in (1.0, 1.5) for steps in (2, 10)
    ]
    assert all(row["mel distance"]["n"] == 3 and row["audio_seconds_per_second"] > 0 for row in decoded)
    assert len({row["mel distance"]["value"] for row in decoded}) == 8  # each setting makes other sounds
    # 10 steps and guidance 1.5 are the codec's defaults, which the suite decodes with.
    suite = run(suite=folder / "suite.yaml", corpus=[folder / "corpus"], codec=codecs[0], limit=3, out=tmp_path,
                untrained_limit=0, processes=1)  # fmt: skip
    for score in suite["tasks"][0]["scores"]:
        assert decoded[3][score["name"]]["value"] == pytest.approx(score["value"], rel=1e-6)
        if score["original"]:
            assert originals[score["name"]]["value"] == score["original"]["value"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--tasks", "asr", "asks a model, not a codec"), ("--steps", "0", "must be at least 1")],
)
def test_bad_input(benchmark_module, monkeypatch, capsys, folder, option, value, message):
    arguments = ("--codec", folder / "codec0", "--corpus", folder / "corpus")
    with pytest.raises(UserError, match=message):
        command(benchmark_module, monkeypatch, capsys, *arguments, option, value)
    assert not capsys.readouterr().out
