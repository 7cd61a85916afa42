"""A run's folder: whose it is, when it is made, and how a run ends that the system or a person stops."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from codec.io.errors import UserError
from codec.io.files import sha256_of
from codec.io.locks import LOCK_FILE, locked
from tests.factories import children, trainer
from training import metrics
from training.engine import checkpoint
from training.engine.engine import Engine
from training.lm.train_text import TextModelRecipe
from training.metrics import FORMER_FILE, read_metrics
from training.recipe import parse
from training.run import OWN, Run, check_place


def said(folder: Path, rank: int = 0) -> str:
    return (folder / f"rank{rank}.txt").read_text()


def test_a_run_that_fails_before_its_first_step_leaves_nothing(tmp_path):
    recipe = parse(trainer.TinyRecipe, trainer.values(tmp_path / "runs" / "one"), "the test")
    with pytest.raises(UserError, match="no such store"), Run(recipe):
        raise UserError("no such store")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="no such clip"), Run(recipe) as run:
        for _ in run.steps():
            raise UserError("no such clip")
    assert not (tmp_path / "runs").exists()
    trainer.train(trainer.values(tmp_path / "runs" / "one"))


def test_a_folder_that_was_there_stays_as_it_was(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    recipe = parse(trainer.TinyRecipe, trainer.values(tmp_path / "run"), "the test")
    with pytest.raises(UserError), Run(recipe):
        raise UserError("no such store")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    trainer.train(trainer.values(tmp_path / "run"))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"notes.txt", *OWN} - {FORMER_FILE}


@pytest.mark.parametrize("out", [".", "..", "/", "./", "//", "{home}", "~/run", "{cwd}", "{cwd}/..", "bad\0name"])
def test_places_that_hold_other_things_are_no_place_for_a_run(tmp_path, monkeypatch, out):
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    out = out.format(home=tmp_path / "home", cwd=tmp_path / "work")
    with pytest.raises(UserError, match="^out: "), Run(trainer.TinyRecipe(out=out, steps=1)):
        pass
    assert not list((tmp_path / "work").iterdir()) and not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("below", ["", "/deeper", "/deeper/still"])
def test_a_file_is_no_place_for_a_run(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file"), Run(trainer.TinyRecipe(out=f"{tmp_path}/file{below}", steps=1)):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_neither_a_checkpoint_nor_what_is_read_is_a_place_for_a_run(tmp_path):
    trainer.train(trainer.values(tmp_path / "run", steps=2))
    inner = tmp_path / "run" / "checkpoints" / "step-00000002"
    for out in (inner, inner / "new", inner / "model" / "new"):
        with pytest.raises(UserError, match="lies in the checkpoint"):
            check_place(trainer.TinyRecipe(out=str(out), steps=1))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    for out in (tmp_path / "model", tmp_path / "model" / "new"):
        with pytest.raises(UserError, match="which is read as init"):
            check_place(TextModelRecipe(out=str(out), steps=1, init=str(tmp_path / "model")))
    with pytest.raises(UserError, match="which is read as corpora"):
        check_place(TextModelRecipe(out=str(tmp_path), steps=1, corpora=(str(tmp_path),)))
    check_place(TextModelRecipe(out=str(tmp_path / "new"), steps=1, corpora=(str(tmp_path),)))


@pytest.mark.parametrize("name", OWN)
def test_what_a_run_would_write_is_not_there_yet(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"already holds a run|holds {name}"):
        trainer.train(trainer.values(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_one_run_at_a_time(tmp_path):
    run = tmp_path / "run"
    trainer.train(trainer.values(run, steps=2))
    with locked(run, "a training run"):
        for resume in (True, run / "checkpoints" / "step-00000002"):
            with pytest.raises(UserError, match=rf"in use by a training run, process {os.getpid()} on "):
                trainer.train(trainer.values(run), resume=resume)
    trainer.train(trainer.values(run), resume=True)
    assert not (run / LOCK_FILE).exists()


def train_and_hold(values: dict) -> None:
    trainer.train(values | {"loading": 30.0})


def test_the_lock_of_a_killed_run_is_in_nobodys_way(tmp_path):
    values = trainer.values(tmp_path / "run")
    (child,) = children.start(train_and_hold, values)
    wait_for(lambda: (tmp_path / "run" / LOCK_FILE).exists())
    time.sleep(0.3)
    with pytest.raises(UserError, match=rf"process {child.pid} on "):
        trainer.train(values)
    child.kill()
    child.join()
    trainer.train(values)
    assert not (tmp_path / "run" / LOCK_FILE).exists()


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_stops_at_once(tmp_path, number, world):
    (tmp_path / "run").mkdir()
    started = children.start(train_and_hold, trainer.values(tmp_path / "run"), world=world, out=tmp_path)
    wait_for(lambda: (tmp_path / "run" / LOCK_FILE).exists())
    time.sleep(1.0)
    for child in started:
        os.kill(child.pid, number)
    assert children.finish(started, 30) == [128 + number] * world
    assert not list((tmp_path / "run").iterdir())
    assert "stopped before the first step" in said(tmp_path) and "Traceback" not in said(tmp_path)


def stopped(tmp_path: Path, *numbers: int, steps: int = 1) -> tuple[int, int]:
    """(exit status, steps done) of a run that gets signals in its first step."""
    done = 0
    with pytest.raises(SystemExit) as end, Run(trainer.TinyRecipe(out=str(tmp_path / "run"), steps=steps)) as run:
        for step in run.steps():
            for number in numbers:
                os.kill(os.getpid(), number)
            done = step
            run.save_due(step)
    return end.value.code, done


@pytest.mark.parametrize("steps", [1, 5])
def test_a_signal_in_any_step_is_told_from_an_end(tmp_path, steps):
    """A script goes on to its next line after status 0 only, so the last step is no exception."""
    before = signal.getsignal(signal.SIGINT)
    assert stopped(tmp_path, signal.SIGINT, steps=steps) == (130, 1)
    assert stopped(tmp_path, signal.SIGTERM, steps=steps) == (143, 1)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_signal_stops_at_once_but_for_a_launchers_echo(tmp_path, monkeypatch):
    assert stopped(tmp_path, signal.SIGINT, signal.SIGINT) == (130, 0)
    monkeypatch.setattr(
        "training.engine.processes.is_launched", lambda: True
    )  # it sends on what the terminal sent already
    assert stopped(tmp_path, signal.SIGINT, signal.SIGINT) == (130, 1)
    monkeypatch.setattr("training.run._ECHO", 0.0)
    assert stopped(tmp_path, signal.SIGINT, signal.SIGTERM) == (143, 0)


def fill(values: dict, limit: int) -> None:
    """Train where no file may grow beyond `limit` bytes, which fails like a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    trainer.train(values, resume=True)


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoint_that_does_not_fit(tmp_path, world):
    values = trainer.values(tmp_path / "run", width=600)
    trainer.train(values | {"steps": 2})
    before = {path: sha256_of(path) for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    assert children.run(fill, values, 20_000, world=world, out=tmp_path) == [1] * world
    for rank in range(world):
        last = said(tmp_path, rank).splitlines()[-1]
        assert "UserError" in last and "run/checkpoints/step-00000004: File too large; files may not grow" in last
    after = {path: sha256_of(path) for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    assert after == before
    assert (tmp_path / "run" / "model").resolve() == tmp_path / "run" / "checkpoints" / "step-00000002" / "model"
    trainer.train(values, resume=True)


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "recipe.yaml"])
def test_a_disk_that_is_full_for_the_small_files(tmp_path, monkeypatch, name):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if name == "recipe.yaml":
        monkeypatch.setattr("training.run.write_text", refuse)
    elif name == "tensorboard":
        monkeypatch.setattr("training.tensorboard_events.RecordWriter.write", refuse)
    else:
        monkeypatch.setattr(metrics, "_reopen", refuse)
    with pytest.raises(UserError, match=rf"{tmp_path / 'run'}: No space left on device; make room on the disk"):
        trainer.train(trainer.values(tmp_path / "run"))
    monkeypatch.undo()
    trainer.train(trainer.values(tmp_path / "run"), resume=True)
    assert [entry["step"] for entry in read_metrics(tmp_path / "run")] == list(range(1, 9))


@pytest.mark.parametrize("hidden", ["OSError", "SafetensorError", "RuntimeError"])
def test_refusals_that_libraries_hide(tmp_path, monkeypatch, hidden):
    from safetensors import SafetensorError

    errors = {
        "OSError": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        "SafetensorError": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        "RuntimeError": RuntimeError("[enforce fail at container.cc:668] PytorchStreamWriter failed writing file"),
    }

    def refuse(*_):
        raise errors[hidden]

    monkeypatch.setattr(checkpoint.optimiser_state, "save", refuse)
    with pytest.raises(UserError, match="step-00000002: .*choose another place"):
        trainer.train(trainer.values(tmp_path / "run"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_other_errors_of_libraries_are_not_called_a_full_disk(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(checkpoint.optimiser_state, "save", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.train(trainer.values(tmp_path / "run"))


def test_a_process_that_fails_alone_takes_the_others_with_it(tmp_path):
    values = trainer.values(tmp_path / "run", fails="clip-3: damaged; remove it")
    assert children.run(trainer.train, values, world=2, out=tmp_path) == [1, 1]
    assert said(tmp_path, 1).rstrip().endswith("UserError: clip-3: damaged; remove it")
    assert "UserError: process 0 of the run has lost another one" in said(tmp_path, 0)


def test_a_place_that_cannot_be_had_is_told_to_all(tmp_path):
    (tmp_path / "run").write_text("a file")
    assert children.run(trainer.train, trainer.values(tmp_path / "run"), world=2, out=tmp_path) == [1, 1]
    for rank in (0, 1):
        assert "run is a file" in said(tmp_path, rank).splitlines()[-1]


def test_what_is_said_shows_as_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "metrics", lambda self: {"loss\x1b[2J": float("nan")})
    trainer.train(trainer.values(tmp_path / "run", steps=1))
    assert "\x1b[2J" not in capsys.readouterr().out
    assert read_metrics(tmp_path / "run")[0]["loss\x1b[2J"] is None


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the child did not get there"
        time.sleep(0.02)
