"""Several processes started, stopped and lost together. The programs here stand in for a trainer: they load nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from codec.io.errors import UserError
from tests import ROOT
from training.engine.launch import launch

# Waits for SIGINT or SIGTERM, leaves a file with its number, and ends as a run that was saved does.
WAITS = """
    import os, signal, sys, time
    sys.path.insert(0, {repository!r})
    from training.engine.launch import end_with_launcher
    rank = os.environ["RANK"]
    def stop(number, frame):
        open({folder!r} + "/signal" + rank, "a").write(str(number) + " ")
        time.sleep(0.2)
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    end_with_launcher()
    open({folder!r} + "/ready" + rank, "w").write(str(os.getpid()))
    time.sleep(60)
"""


def program(text: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text).format(folder=str(folder), repository=str(ROOT))]


def launcher(text: str, folder: Path) -> subprocess.Popen:
    """`launch` of two such programs, in a process of its own."""
    code = f"import sys; from training.engine.launch import launch; sys.exit(launch({program(text, folder)!r}, 2))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen([sys.executable, "-c", code], env=environment, process_group=0, stderr=subprocess.PIPE)
    wait_for(lambda: all((folder / f"ready{rank}").exists() for rank in (0, 1)))
    return started


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not get there"
        time.sleep(0.02)


def test_each_process_knows_its_place(tmp_path):
    text = """
        import os
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
        open({folder!r} + "/" + os.environ["RANK"], "w").write(" ".join(os.environ[name] for name in names))
    """
    assert launch(program(text, tmp_path), 2) == 0
    first, second = ((tmp_path / str(rank)).read_text().split() for rank in (0, 1))
    assert first[:4] == ["0", "0", "2", "127.0.0.1"] and second[:4] == ["1", "1", "2", "127.0.0.1"]
    assert first[4:] == second[4:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_group", [True, False], ids=["terminal", "kill"])
def test_a_signal_reaches_each_process_once(tmp_path, number, to_group):
    started = launcher(WAITS, tmp_path)
    os.kill(-started.pid if to_group else started.pid, number)
    assert started.wait(30) == 128 + number
    assert [(tmp_path / f"signal{rank}").read_text() for rank in (0, 1)] == [f"{int(number)} "] * 2
    assert b"Traceback" not in started.stderr.read()


def test_processes_end_with_a_killed_launcher(tmp_path):
    started = launcher(WAITS, tmp_path)
    started.kill()
    started.wait()
    wait_for(lambda: all((tmp_path / f"signal{rank}").exists() for rank in (0, 1)))
    assert {(tmp_path / f"signal{rank}").read_text() for rank in (0, 1)} == {f"{int(signal.SIGTERM)} "}


def test_the_status_is_that_of_the_process_that_failed(tmp_path):
    text = """
        import os, sys, time
        if os.environ["RANK"] == "1":
            open({folder!r} + "/ended", "w").close()
            sys.exit(3)
        while not os.path.exists({folder!r} + "/ended"):
            time.sleep(0.01)
        time.sleep(1)
        sys.exit(2)
    """
    assert launch(program(text, tmp_path), 2) == 3


def test_a_process_that_was_killed_is_a_failure(tmp_path):
    text = "import os, signal; os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL)"
    assert launch(program(text, tmp_path), 2) == 128 + signal.SIGKILL


def test_those_that_wait_in_vain_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("training.engine.launch._PATIENCE", 0.3)
    text = "import os, sys, time; time.sleep(60) if os.environ['RANK'] == '0' else sys.exit(2)"
    began = time.monotonic()
    assert launch(program(text, tmp_path), 2) == 2
    assert time.monotonic() - began < 20


def test_no_launcher_within_a_launcher(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UserError, match="--processes"):
        launch(["true"], 2)
