"""The training benchmark: each straightforward version is the same computation, and the command says so or fails."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from tests import ROOT


@pytest.fixture
def lm_train(monkeypatch):
    """The command as a module; its folder is where Python finds it when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import lm_train

    return lm_train


def run(lm_train, monkeypatch, capsys, *arguments: str) -> tuple[int, list[dict], str]:
    """Exit code, lines and messages of the command at size tiny on one thread."""
    monkeypatch.setattr(sys, "argv", ["lm_train.py", "--size", "tiny", "--threads", "1", *arguments])
    code = lm_train.main()
    printed = capsys.readouterr()
    return code, [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.mark.parametrize("case", ["embeddings", "cross_entropy", "depth_decoder", "packing", "all"])
def test_same_loss_and_gradients(lm_train, case):
    """Of every parameter, not only their norm; on rows where each switch has something to do."""
    workload = lm_train.SIZES["tiny"]
    ours, plain = lm_train.Step(workload, None), lm_train.Step(workload, lm_train.CASES[case])
    assert ours.run()[0] == pytest.approx(plain.run()[0], rel=1e-5)
    others = dict(plain.model.named_parameters())
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter.grad, others[name].grad, atol=1e-6, rtol=1e-4, msg=name)
    facts = ours.facts()
    assert 0 < facts["text_targets"] and 0 < facts["audio_targets"] < facts["rows"]
    entries, length = ours.batch.loss.shape
    assert entries < len(ours.sentences) and entries * length >= facts["rows"]
    if "packing" in lm_train.CASES[case]:
        assert len(plain.batch.loss) == len(ours.sentences) and plain.batch.position_ids is None


def test_lines(lm_train, monkeypatch, capsys):
    arguments = ("--cases", "depth_decoder", "packing", "--repeats", "2", "--peak-flops", "1e12")
    code, lines, messages = run(lm_train, monkeypatch, capsys, *arguments)
    assert (code, messages) == (0, "")
    assert [line["case"] for line in lines] == ["depth_decoder", "packing"]
    for line in lines:
        assert line["threads"] == 1 and line["dtype"] == "float32" and line["torch"] == torch.__version__
        assert line["ours"]["loss"] == pytest.approx(line["straightforward"]["loss"], rel=1e-5)
        for version in ("ours", "straightforward"):
            side = line[version]
            low, high = side["rows_per_s_spread"]
            assert 0 < low <= side["rows_per_s"] <= high
            assert side["peak_mib"] >= side["rest_mib"] > 0
            # Rows of the sentences alone, so that padding earns nothing.
            expected = line["flop"] / (line["rows"] / side["rows_per_s"]) / 1e12
            assert side["mfu"] == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_a_difference_fails(lm_train, monkeypatch, capsys):
    monkeypatch.setitem(lm_train.TOLERANCE, "loss", -1.0)
    code, lines, messages = run(lm_train, monkeypatch, capsys, "--cases", "embeddings", "--repeats", "1")
    assert code == 1 and len(lines) == 1
    assert messages.startswith("embeddings: loss ")


def test_not_a_number_is_a_difference(lm_train):
    sides = {"loss": 1.0, "gradient_norm": 1.0}
    line = {"case": "packing", "ours": sides, "straightforward": sides}
    assert lm_train.disagreements(line) == []
    assert lm_train.disagreements(line | {"ours": sides | {"loss": 1.00002}})
    assert lm_train.disagreements(line | {"ours": sides | {"gradient_norm": float("nan")}})


def test_flop_of_a_model_counted_by_hand(lm_train):
    workload = lm_train.SIZES["tiny"]
    step = lm_train.Step(replace(workload, rows=100), None)
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64  # queries and output, keys and values (2 of 4 heads), MLP
    depth_layer = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32
    depth = 32 * 16 + 2 * depth_layer
    facts = step.facts()
    weights = facts["rows"] * 5 * layer + facts["text_targets"] * 32 * 50
    weights += facts["audio_targets"] * 8 * (depth + 16 * workload.model.layout.audio_size)
    pairs = sum(length * (length + 1) / 2 for length in map(len, step.sentences))
    assert facts["flop"] == 6 * weights + 12 * 32 * 5 * pairs
