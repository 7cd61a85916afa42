"""X-Codec beside transformers' at a small size: the same results first, then a line for each case."""

import json
import sys

import pytest
import torch

from codec.io.errors import UserError
from tests.factories.one_stream.almtokenizer import small_almtokenizer


def command(benchmark_module, monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["xcodec_against_transformers.py", *map(str, arguments)])
    return benchmark_module("xcodec_against_transformers").main()


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_lines(benchmark_module, monkeypatch, capsys):
    options = ("--size", "small", "--seconds", 0.5, 1, "--batch", 1, 2, "--quick")
    assert command(benchmark_module, monkeypatch, *options) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    cases = [(line["case"], line["seconds"], line["batch"]) for line in lines]
    assert cases == [(c, s, b) for c in ("encode", "decode") for s in (0.5, 1) for b in (1, 2)]
    for line in lines:
        assert line["ratio"] == pytest.approx(line["theirs_seconds"] / line["ours_seconds"], rel=0.1)
        assert line["repeats"] == 2
        if line["case"] == "encode":
            assert line["equal_ids"] > 0.995 and line["different_ids_used"] > 30
        else:
            assert line["largest_difference"] < 1e-4
    assert "transformers s" in printed.err


def test_what_differs_is_not_timed(benchmark_module):
    difference = benchmark_module("xcodec_against_transformers").difference
    ids = torch.arange(100)
    with pytest.raises(RuntimeError, match="90.00% of the ids"):
        difference("encode", ids, torch.where(ids < 10, -1, ids))
    with pytest.raises(RuntimeError, match="differ from transformers' by 1.0e-02"):
        difference("decode", torch.ones(3), torch.full((3,), 1 / 0.99))
    with pytest.raises(RuntimeError, match=r"\(3,\), transformers' \(4,\)"):
        difference("decode", torch.ones(3), torch.ones(4))


def test_another_codec_is_refused(benchmark_module, monkeypatch, tmp_path):
    small_almtokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="type 'almtokenizer', not 'xcodec'"):
        command(benchmark_module, monkeypatch, "--codec", tmp_path)
