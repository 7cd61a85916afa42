"""The benchmark of a token store's build: its line, and what it refuses."""

import json
import sys

import pytest
import torch

from codec.io.errors import UserError


def command(benchmark_module, monkeypatch, capsys, *arguments) -> tuple[int, dict]:
    fixed = ("--size", "tiny", "--threads", torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["tokenise.py", *map(str, (*fixed, *arguments))])
    code = benchmark_module("tokenise").main()
    return code, json.loads(capsys.readouterr().out)


def test_a_line(benchmark_module, monkeypatch, capsys):
    code, line = command(benchmark_module, monkeypatch, capsys, "--minutes", 0.3)
    assert code == 0 and line["hours"] == 0.005 and line["clips"] >= 2
    assert line["hours_an_hour"] > 0 and 0 < line["busy"] <= 1


def test_bad_input(benchmark_module, monkeypatch, capsys):
    with pytest.raises(UserError, match="--minutes must be more than 0"):
        command(benchmark_module, monkeypatch, capsys, "--minutes", -1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_nothing_is_measured(benchmark_module, monkeypatch, capsys):
    code, line = command(benchmark_module, monkeypatch, capsys, "--device", "cuda")
    assert code == 1 and "torch finds no accelerator" in line["why"]
