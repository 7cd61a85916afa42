"""Several processes give what one gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.io.errors import UserError
from tests import ROOT
from tests.factories import children, trainer
from training.engine import processes
from training.metrics import read_metrics


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("alone") / "run"
    trainer.train(trainer.values(run))
    return run


def losses(run: Path) -> list[float]:
    return [entry["loss"] for entry in read_metrics(run)]


def assert_close(run: Path, alone: Path) -> None:
    assert losses(run) == pytest.approx(losses(alone), abs=1e-5)
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, alone))
    for name, tensor in theirs.items():
        if name != "seen":  # counts the micro-batches of the first process
            torch.testing.assert_close(ours[name], tensor, atol=1e-4, rtol=1e-4)


CASES = [
    (2, 0),
    (2, 3),
    pytest.param(2, 1, marks=pytest.mark.slow),
    pytest.param(2, 2, marks=pytest.mark.slow),
    pytest.param(4, 0, marks=pytest.mark.slow),
    pytest.param(4, 2, marks=pytest.mark.slow),
    pytest.param(4, 3, marks=pytest.mark.slow),
]


def test_each_process_has_a_gpu_of_its_own():
    assert [processes._own_gpu(rank, 4) for rank in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"process 2 .* no GPU of its own, for there are 2: .*\(--processes 2\)"):
        processes._own_gpu(2, 2)


@pytest.mark.parametrize(("world", "stage"), CASES)
def test_the_same_losses_on_any_number_of_processes(tmp_path, alone, world, stage):
    values = trainer.values(tmp_path / "run", engine={"micro_batches": 4, "zero_stage": stage})
    assert children.run(trainer.train, values, world=world, out=tmp_path) == [0] * world, said(tmp_path)
    assert_close(tmp_path / "run", alone)


@pytest.mark.parametrize(("world", "stage"), [CASES[0], pytest.param(2, 3, marks=pytest.mark.slow), *CASES[2:]])
def test_resumed_with_another_number_of_processes(tmp_path, alone, world, stage):
    """Four steps alone at ZeRO 1, the rest in company, and the last two alone again."""
    run = tmp_path / "run"
    one = trainer.values(run, engine={"micro_batches": 4, "zero_stage": 1}, optimiser=CONSTANT)
    many = one | {"engine": {"micro_batches": 4, "zero_stage": stage}}
    trainer.train(one | {"steps": 4})
    assert children.run(trainer.train, many | {"steps": 6}, True, world=world, out=tmp_path) == [0] * world, said(
        tmp_path
    )
    trainer.train(one, resume=True)
    whole = trainer.values(tmp_path / "whole", optimiser=CONSTANT)
    trainer.train(whole)
    assert_close(run, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_resumed_with_as_many_processes_is_bit_for_bit(tmp_path, stage):
    values = trainer.values(tmp_path / "whole", engine={"micro_batches": 4, "zero_stage": stage}, optimiser=CONSTANT)
    broken = values | {"out": str(tmp_path / "broken")}
    for arguments in ((values,), (broken | {"steps": 4},), (broken, True)):
        assert children.run(trainer.train, *arguments, world=2, out=tmp_path) == [0, 0], said(tmp_path)
    assert trainer.weights(tmp_path / "broken") == trainer.weights(tmp_path / "whole")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")


def test_a_loss_that_is_not_finite_in_one_process_stops_all(tmp_path):
    values = trainer.values(tmp_path / "run", poison=9)  # falls to the second process
    assert children.run(trainer.train, values, world=2, out=tmp_path) == [1, 1]
    for rank in (0, 1):
        assert (
            "step 3: the loss is not finite (examples: clip-11, clip-9)" in (tmp_path / f"rank{rank}.txt").read_text()
        )


@pytest.mark.slow
def test_torchrun(tmp_path, alone):
    import json

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    values = json.dumps(trainer.values(tmp_path / "run"))
    subprocess.run([*launcher, "-m", "tests.factories.trainer", values], check=True, cwd=ROOT, timeout=200)
    assert_close(tmp_path / "run", alone)


CONSTANT = {"lr": 0.01, "warmup_steps": 2, "schedule": "constant"}


def said(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("rank*.txt")))
