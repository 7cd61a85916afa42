"""Interrupted training equals uninterrupted training, bit for bit, wherever it was interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from codec.io.errors import UserError
from tests.factories import children, trainer
from training.engine import checkpoint, optimiser_state
from training.metrics import read_metrics


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    trainer.train(trainer.values(run))
    return run


def assert_same(run: Path, uninterrupted: Path) -> None:
    assert trainer.weights(run) == trainer.weights(uninterrupted)
    ours, theirs = (
        [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in read_metrics(folder)]
        for folder in (run, uninterrupted)
    )
    assert ours == theirs
    assert not list(run.rglob("*.partial"))


# Where kill -9 strikes in the save of step 6: (module, function, what stands in its arguments).
KILL_POINTS = {
    "before the save": (checkpoint, "save", ", 6, "),
    "before the optimiser's state": (optimiser_state, "save", "step-00000006"),
    "while the manifest is made": (checkpoint, "_hash_tree", "step-00000006"),
    "while it is flushed": (checkpoint, "flush", "step-00000006.partial/model/model.safetensors"),
    "before the rename": (os, "rename", "step-00000006.partial"),
    "before the link": (checkpoint, "link", "step-00000006"),
    "while an old one is dropped": (shutil, "rmtree", "step-00000002.partial"),
}


def train_and_die(values: dict, where: str) -> None:
    module, name, words = KILL_POINTS[where]
    original = getattr(module, name)

    def deadly(*arguments, **named):
        if words in str(arguments):
            children.die()
        return original(*arguments, **named)

    setattr(module, name, deadly)
    trainer.train(values)


@pytest.mark.parametrize("where", KILL_POINTS)
def test_kill_minus_9(tmp_path, uninterrupted, where):
    values = trainer.values(tmp_path / "run")
    assert children.run(train_and_die, values, where) == [-signal.SIGKILL]
    found, refused = checkpoint.newest(tmp_path / "run")
    assert found.step == (6 if where in ("before the link", "while an old one is dropped") else 4) and not refused
    trainer.train(values, resume=True)
    assert_same(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, uninterrupted, number):
    values = trainer.values(tmp_path / "run", save_every=100)
    (child,) = children.start(trainer.train, values | {"pause": 0.05}, out=tmp_path)
    wait_for(lambda: len(metric_logger(tmp_path / "run")) >= 3)
    os.kill(child.pid, number)
    assert children.finish([child]) == [128 + number]
    said = (tmp_path / "rank0.txt").read_text()
    assert number.name in said and "resume with --resume" in said and "Traceback" not in said
    found, _ = checkpoint.newest(tmp_path / "run")
    assert 3 <= found.step < 8
    trainer.train(values | {"pause": 0.05}, resume=True)  # the same recipe
    assert_same(tmp_path / "run", uninterrupted)


def save_and_die(values: dict, resume: bool) -> None:
    save = checkpoint.save

    def saved(*arguments) -> None:
        save(*arguments)
        children.die()

    checkpoint.save = saved
    trainer.train(values, resume)


def test_killed_after_every_single_step(tmp_path, uninterrupted):
    values = trainer.values(tmp_path / "run", save_every=1)
    for step in range(1, 9):
        assert children.run(save_and_die, values, step > 1) == [-signal.SIGKILL]
        assert checkpoint.newest(tmp_path / "run")[0].step == step
    assert_same(tmp_path / "run", uninterrupted)


def test_another_number_of_steps_only_stretches_the_run(tmp_path, uninterrupted):
    values = trainer.values(tmp_path / "run", optimiser={"lr": 0.02, "warmup_steps": 2, "schedule": "constant"})
    trainer.train(values | {"steps": 4})
    trainer.train(values, resume=True)
    whole = trainer.values(tmp_path / "whole", optimiser=values["optimiser"])
    trainer.train(whole)
    assert trainer.weights(tmp_path / "run") == trainer.weights(tmp_path / "whole")


def test_a_folder_with_a_run_is_never_started_over(tmp_path, uninterrupted):
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True))
    before = sorted(path.relative_to(run) for path in run.rglob("*"))
    with pytest.raises(UserError, match="already holds a run: resume it with --resume, or train into another folder"):
        trainer.train(trainer.values(run))
    assert sorted(path.relative_to(run) for path in run.rglob("*")) == before
    trainer.train(trainer.values(run), resume=True)  # nothing left to do
    assert_same(run, uninterrupted)


def test_resume_without_a_checkpoint_says_that_it_starts(tmp_path, uninterrupted, capsys):
    trainer.train(trainer.values(tmp_path / "run"), resume=True)
    assert "no checkpoint yet; starting from the beginning" in capsys.readouterr().out
    assert_same(tmp_path / "run", uninterrupted)


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path, uninterrupted, capsys):
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True))
    damaged = run / "checkpoints" / "step-00000008"
    (damaged / "recipe.yaml").write_text("")
    trainer.train(trainer.values(run), resume=True)
    said = capsys.readouterr().out
    assert f"{damaged / 'recipe.yaml'}: damaged" in said and "resuming from" in said
    assert (run / "checkpoints" / "step-00000008.damaged").is_dir()
    assert_same(run, uninterrupted)
    for folder in (run / "checkpoints").iterdir():
        (folder / "recipe.yaml").write_text("")
    with pytest.raises(UserError, match="none of its checkpoints is whole"):
        trainer.train(trainer.values(run), resume=True)


def test_an_explicit_checkpoint(tmp_path, uninterrupted):
    run = Path(shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True))
    fourth = run / "checkpoints" / "step-00000006"
    with pytest.raises(UserError, match="not a complete checkpoint"):
        trainer.train(trainer.values(run), resume=tmp_path / "nothing")
    with pytest.raises(UserError, match="newer.*step-00000008"):
        trainer.train(trainer.values(run), resume=fourth)
    trainer.train(trainer.values(tmp_path / "branch"), resume=fourth)  # another folder may start from it
    assert trainer.weights(tmp_path / "branch") == trainer.weights(uninterrupted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 8}, "seed: 7, this one seed: 8"),
        ({"optimiser": {"lr": 0.5}}, "optimiser.lr: 0.02, this one optimiser.lr: 0.5.*--allow-change optimiser.lr"),
        ({"steps": 6}, "at step 8, beyond"),
    ],
)
def test_another_recipe_is_not_a_continuation(uninterrupted, change, words):
    with pytest.raises(UserError, match=words):
        trainer.train(trainer.values(uninterrupted, **change), resume=True)


def metric_logger(run: Path) -> list:
    try:
        return read_metrics(run)
    except UserError:  # there is none yet
        return []


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the child did not get there"
        time.sleep(0.01)
