"""The generation benchmark: its lines, the accelerator's cases at a tiny size, and its refusal without one."""

import json
import sys

import pytest
import torch

from lm.generation import static_step
from tests import ROOT


@pytest.fixture
def lm_generate(monkeypatch):
    """The command as a module; its folder is where Python finds it when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import lm_generate

    return lm_generate


def run(lm_generate, monkeypatch, capsys, *arguments: str) -> tuple[int, list[dict]]:
    threads = ("--threads", str(torch.get_num_threads()))
    monkeypatch.setattr(sys, "argv", ["lm_generate.py", *threads, "--rows", "6", "--repeats", "2", *arguments])
    code = lm_generate.main()
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("precision", [(), ("--dtype", "bfloat16"), ("--int8",), ("--int8", "--dtype", "bfloat16")])
def test_lines(lm_generate, monkeypatch, capsys, precision):
    """The accelerator's cases; compiled steps run without their compiler here, graphs as recordings."""
    monkeypatch.setattr(static_step, "_compiled", lambda device: static_step._step)
    cases = ("--steps", "compiled", "graph", "--cases", "audio_batch1", "text_", "compiled_", "graph_audio_batch1")
    code, lines = run(lm_generate, monkeypatch, capsys, "--size", "tiny", *precision, *cases)
    by_name = {line["case"]: line for line in lines}
    assert code == 0
    both = {f"{kind}_batch{size}" for kind in ("text", "compiled_text", "compiled_audio") for size in (1, 16)}
    both.add("graph_audio_batch1")
    assert by_name.keys() == {"audio_batch1"} | both
    assert by_name["compiled_text_batch16"]["weight_mib_per_step"] == by_name["text_batch16"]["weight_mib_per_step"]
    for name, line in by_name.items():
        low, high = line["rows_per_s_spread"]
        assert 0 < low <= line["rows_per_s"] <= high and line["peak_mib"] > 0
        assert line["weights"] == ("int8" if "--int8" in precision else line["dtype"])
        if "audio" in name:
            assert line["rtf"] == pytest.approx(17.5 / line["rows_per_s"], rel=0.01, abs=0.001)
        for kind in ("audio", "text") if precision else ():
            change = line["logits_change"][kind]
            assert 0 < change["max_abs"] and 0 < change["in_standard_deviations"] < 0.5
            assert 0.5 < change["same_likeliest_id"] <= 1
        assert precision or "logits_change" not in line


def test_bytes_of_the_weights(lm_generate):
    """A quarter, and the scales: two bytes for every output."""
    from lm.generation.int8 import quantise_weights

    model = lm_generate.SIZES["tiny"].build()
    bench = lm_generate.Bench(model, 1)
    before = {case: bench.weight_bytes(case) for case in ("audio_batch1", "text_batch1")}
    assert before["text_batch1"] == sum(p.numel() for p in model.cross_modal.layers.parameters()) * 4 + 4 * (
        model.cross_modal.norm.weight.numel() + model.lm_head.weight.numel()
    ) + sum(b.numel() * b.element_size() for b in model.cross_modal.buffers())
    quantise_weights(model)
    for case, size in before.items():
        assert size / 4 < bench.weight_bytes(case) < size / 2.5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_nothing_is_measured(lm_generate, monkeypatch, capsys):
    code, (line,) = run(lm_generate, monkeypatch, capsys, "--size", "3b", "--device", "cuda", "--steps", "plain")
    assert code == 1 and line["measured"] is False and line["why"].startswith("not measured")
