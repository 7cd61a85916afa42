"""The run on a GPU: what steps print is kept, however they end, and nothing is measured without one."""

import json
import sys

import pytest
import torch

from tests import ROOT

SAYS = "import json; print('hello'); print(json.dumps({'case': 'a', 'rows_per_s': 7.5})); "


@pytest.fixture
def gpu(benchmark_module):
    return benchmark_module("gpu")


def test_lines_are_kept_of_a_step_that_ends_well_badly_or_not_at_all(gpu, tmp_path):
    ends = {"well": "", "badly": "raise SystemExit('no memory')", "late": "import time; time.sleep(60)"}
    found = [
        gpu.run(gpu.Step(name, ["-u", "-c", SAYS + end], 10.0 if name != "late" else 3.0), tmp_path)
        for name, end in ends.items()
    ]
    assert [outcome.status for outcome in found] == [0, 1, None]
    assert all(outcome.lines == [{"step": outcome.step.name, "case": "a", "rows_per_s": 7.5}] for outcome in found)
    page = gpu.page("NVIDIA H200", {"torch": "2.11"}, found)
    assert (
        "| well | well |" in page and "| badly | with status 1 |" in page and "| late | stopped at its limit |" in page
    )
    assert page.count("| a | 7.5 |") == 3 and "no memory" in page and page.startswith("# NVIDIA H200, 20")


def test_every_step_is_a_benchmark_that_knows_its_options_and_all_fit_into_nine_minutes(gpu, monkeypatch, capsys):
    for card, mfu in (("NVIDIA H200", True), ("Tesla T4", False)):
        steps = gpu.steps(card)
        assert sum(step.limit for step in steps) <= 500
        assert any("--peak-flops" in step.arguments for step in steps) == mfu
    for step in steps:
        file = step.arguments[0]
        if file == "-m":
            assert all((ROOT / name).exists() for name in step.arguments if name.startswith("tests"))
            continue
        text = (ROOT / file).read_text(encoding="utf-8")
        assert all(f'"{option}"' in text for option in step.arguments if option.startswith("--"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_nothing_is_measured(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu.py", str(tmp_path / "out")])
    assert gpu.main() == 1 and not (tmp_path / "out").exists()
    assert "not measured: torch finds no accelerator" in json.loads(capsys.readouterr().out)["why"]
