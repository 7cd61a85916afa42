"""The benchmark of whole training steps: what its lines say, alone and in two processes, and its refusals."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from tests import ROOT
from tests.factories import children

SMALL = ("--size", "tiny", "--threads", "1", "--repeats", "2", "--micro-batches", "2", "--lora-rank", "2")


@pytest.fixture
def lm_train_step(benchmark_module):
    return benchmark_module("lm_train_step")


def run(lm_train_step, monkeypatch, capsys, *arguments: str) -> tuple[int, list[dict]]:
    monkeypatch.setattr(sys, "argv", ["lm_train_step.py", *SMALL, *arguments])
    code = lm_train_step.main()
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def run_in_child(*arguments: str) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import lm_train_step

    sys.argv = ["lm_train_step.py", *SMALL, *arguments]
    sys.exit(lm_train_step.main())


def test_lines(lm_train_step, monkeypatch, capsys):
    cases = ("--cases", "full", "lora_checkpointing", "--zero", "0", "1", "--peak-flops", "1e9")
    code, lines = run(lm_train_step, monkeypatch, capsys, *cases, "--precision", "mixed")
    assert code == 0
    full, full_zero, *lora = lines
    assert [(line["case"], line["zero"]) for line in lines] == [
        (case, zero) for case in ("full", "lora_checkpointing") for zero in (0, 1)
    ]
    for line in lines:
        low, high = line["rows_per_s_spread"]
        assert 0 < low <= line["rows_per_s"] <= high
        assert line["peak_mib"] >= line["rest_mib"] > 0
        assert line["precision"] == "mixed" and line["processes"] == 1
        # Rows of the sentences alone, so that padding earns nothing.
        assert line["batch"] == [2, 1, 128] and 128 < line["rows"] < 2 * 128
        assert line["rows_per_s"] * line["seconds_per_step"] == pytest.approx(line["rows"], rel=0.01)
        assert line["mfu"] == pytest.approx(line["flop"] / line["seconds_per_step"] / 1e9, rel=0.02, abs=1e-4)
        first, last = line["losses"]
        assert last <= first == pytest.approx(full["losses"][0], rel=1e-4)  # differences start at zero
    for line in (full, full_zero):
        assert line["losses"][1] < line["losses"][0]
        assert line["flop"] == full["flop"] and line["trained_parameters"] == full["parameters"]
    for line in lora:
        assert line["trained_parameters"] == line["parameters"] - full["parameters"]
        assert line["trained_parameters"] < full["trained_parameters"] and line["flop"] < full["flop"]


def test_one_micro_batch_of_two_sequences_is_the_same_step(lm_train_step, monkeypatch, capsys):
    """As two of one: the same rows, FLOP and losses."""
    _, (two,) = run(lm_train_step, monkeypatch, capsys, "--cases", "full")
    _, (one,) = run(lm_train_step, monkeypatch, capsys, "--cases", "full", "--micro-batches", "1", "--batch", "2")
    assert one["batch"] == [1, 2, 128]
    for name in ("rows", "flop", "text_targets", "audio_targets"):
        assert one[name] == two[name]
    assert one["losses"] == pytest.approx(two["losses"], rel=1e-4)


def test_rows_without_padding(lm_train_step):
    """As many as there are ids that are no padding, in sequences as long as the context."""
    workload = lm_train_step.WORKLOADS["tiny"]
    batch = lm_train_step.draw_batch(workload, 3)
    assert batch.loss.shape == (3, 128)
    padding = workload.model.layout.pad(1)
    blank = (batch.ids[..., 0] == padding) & (batch.ids[..., -1] == workload.model.layout.text_pad)
    assert blank.any() and lm_train_step.Demand.of(batch).rows == int((~blank).sum())


def test_flop_of_lora_counted_by_hand(lm_train_step):
    """Frozen weights cost 4, those that learn 6; attention costs what it did."""
    workload, rank = lm_train_step.WORKLOADS["tiny"], 2
    recipe = lm_train_step.recipe_of("lora", rank, lm_train_step.EngineRecipe(), 1)
    model = workload.model.build()
    lm_train_step.freeze_for_stage(model, recipe.stage, recipe.lora)
    demand = lm_train_step.Demand(rows=7, audio_rows=5, text_targets=2, audio_targets=3, pairs=28)

    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64  # queries and output, keys and values (2 of 4 heads), MLP
    added = rank * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))  # (inputs + outputs) of every matrix
    depth_layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32
    depth_added = rank * (2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 32))
    expected = 7 * 5 * (4 * layer + 6 * added) + 2 * 4 * 32 * 50
    frozen = 32 * 16 + 2 * depth_layer + 16 * workload.model.layout.audio_size
    expected += 3 * 8 * (4 * frozen + 6 * 2 * depth_added)
    assert demand.flop(model) == expected + 12 * 32 * 5 * 28
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 5 * added + 2 * depth_added
    assert replace(demand, pairs=0).flop(model) == expected


def test_processes_share_the_rows(lm_train_step, monkeypatch, capsys, tmp_path):
    """Two processes with a sequence each do what one does with two: the same rows, FLOP and losses; one prints."""
    _, (alone,) = run(lm_train_step, monkeypatch, capsys, "--cases", "full")
    arguments = ("--cases", "full", "--zero", "2", "--micro-batches", "1", "--peak-flops", "1e9")
    assert children.run(run_in_child, *arguments, world=2, out=tmp_path) == [0, 0]
    printed = [(tmp_path / f"rank{rank}.txt").read_text().splitlines() for rank in (0, 1)]
    lines = [[json.loads(text) for text in texts if text.startswith("{")] for texts in printed]
    assert lines[1] == []
    (shared,) = lines[0]
    assert shared["processes"] == 2
    for name in ("batch", "rows", "flop", "text_targets", "audio_targets"):
        assert shared[name] == alone[name]
    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert shared["mfu"] == pytest.approx(shared["flop"] / shared["seconds_per_step"] / 2e9, rel=0.02, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_nothing_is_measured(lm_train_step, monkeypatch, capsys):
    code, (line,) = run(lm_train_step, monkeypatch, capsys, "--size", "3b", "--precision", "bf16", "--zero", "1")
    assert code == 1 and line["measured"] is False and line["why"].startswith("not measured")


def test_bf16_needs_zero(lm_train_step, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(lm_train_step, monkeypatch, capsys, "--precision", "bf16")
    assert stopped.value.code == 2 and "set engine.zero_stage to 1 or more" in capsys.readouterr().err
