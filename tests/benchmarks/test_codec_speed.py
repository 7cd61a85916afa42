"""The codec's benchmark at a tiny size: its lines, what it leaves out, and the published code's work."""

import json
import sys

import pytest
import torch


def command(benchmark_module, monkeypatch, capsys, *arguments) -> list[dict]:
    fixed = ("--size", "tiny", "--threads", torch.get_num_threads(), "--steps", 1, "--repeats", 2)
    monkeypatch.setattr(sys, "argv", ["codec_speed.py", *map(str, (*fixed, *arguments))])
    assert benchmark_module("codec_speed").main() == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_lines(benchmark_module, monkeypatch, capsys):
    options = ("--seconds", 1, 2, "--batch", 1, 2, "--dtype", "bfloat16", "float32")
    lines = command(benchmark_module, monkeypatch, capsys, *options)
    ours = [line for line in lines if not line["case"].startswith("published")]
    assert [(line["case"], line.get("dtype"), line["seconds"], line["batch"]) for line in ours] == [
        (case, dtype, seconds, batch)
        for case, dtype in (("encode", None), ("decode", "float32"), ("decode", "bfloat16"))
        for seconds in (1, 2)
        for batch in (1, 2)
    ]
    theirs = {line["case"]: line for line in lines if line["case"].startswith("published")}
    assert len(theirs) == len(lines) - len(ours) == 2  # clips of 1 s and 2 s cost the published code the same
    for line in lines:
        for part in ("", "flow_", "scalar_") if line["case"].endswith("decode") else ("",):
            low, high = line[f"{part}spread"]
            assert 0 < low <= line[f"{part}audio_seconds_per_second"] <= high
        assert line["peak_mib"] > 0
    for line in ours:
        like = theirs[f"published_{line['case']}"]
        expected = like["seconds"] / like["audio_seconds_per_second"]  # s for one clip
        expected *= line["audio_seconds_per_second"] / line["seconds"]
        assert line["times_published"] == pytest.approx(expected, rel=0.02)
        # encoding goes by blocks of 0.4 s, of which silence may fill the last
        computed = {"encode": {1: 1.2, 2: 2.4}, "decode": {1: 1.0, 2: 2.0}}[line["case"]][line["seconds"]]
        assert line["computed_seconds"] == pytest.approx(computed * line["batch"])
        work = {"encode": 60, "decode": 20}[line["case"]] / computed
        assert line["work_of_published"] == pytest.approx(work, abs=0.05)


def test_what_would_take_too_long_is_left_out_and_said(benchmark_module, monkeypatch, capsys):
    lines = command(
        benchmark_module, monkeypatch, capsys, "--cases", "encode", "--seconds", 1, 600, "--batch", 1, "--budget", 0.5
    )
    short, long, *theirs = lines
    assert short["audio_seconds_per_second"] > 0 and "times_published" not in short
    for line in (long, *theirs):
        assert line["measured"] is False and "more than --budget 0.5" in line["why"]


@pytest.mark.parametrize(
    ("seconds", "encoded", "windows"), [(1, 60, 1), (2, 60, 1), (20, 60, 1), (30, 90, 2), (31, 60, 2), (120, 150, 8)]
)
def test_what_the_published_code_computes(benchmark_module, seconds, encoded, windows):
    """30 s are just too short for its window, so they are doubled; 250 structural frames fit one decoding window."""
    module = benchmark_module("codec_speed")
    assert module.published_encoded_seconds(seconds) == encoded
    assert module.published_decode_windows(seconds) == windows


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_nothing_is_measured(benchmark_module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["codec_speed.py", "--size", "tiny", "--device", "cuda"])
    assert benchmark_module("codec_speed").main() == 1
    assert "not measured: torch finds no accelerator" in json.loads(capsys.readouterr().out)["why"]


def test_the_published_decode_multiplies_with_mkl(benchmark_module, monkeypatch):
    """And our own with what the machine does best; the switch is set back."""
    module = benchmark_module("codec_speed")
    torch.manual_seed(0)
    bench = module.Bench(module.ReasoningCodec(module.tiny_size()).eval(), 1, 1.0, torch.device("cpu"))
    seen = []
    monkeypatch.setattr(module.fast_linear, "ONEDNN", "as it was")
    bench.codec.flow.estimator.register_forward_pre_hook(lambda *_: seen.append(module.fast_linear.ONEDNN))
    bench.run(bench.published_case("decode", 2))
    bench.run(bench.case("decode", 2, 1))
    assert seen == [False, "as it was"]
