"""One writer at a time: who holds a folder, who is refused, and what nobody holds any more."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codec.io import locks
from codec.io.errors import UserError
from codec.io.locks import LOCK_FILE, locked
from tests import ROOT


def holder(folder: Path) -> subprocess.Popen:
    """Another process that holds the folder until its standard input is closed."""
    code = (
        "import sys; from codec.io.locks import locked\n"
        "with locked(sys.argv[1], 'a token store'): print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(folder)]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
    assert started.stdout.readline() == "held\n"
    return started


def test_the_holder_is_named_and_then_gone(tmp_path):
    other = holder(tmp_path / "folder")
    with pytest.raises(UserError) as error, locked(tmp_path / "folder", "a training run"):
        pass
    said = str(error.value)
    assert f"in use by a token store, process {other.pid} on {socket.gethostname()}" in said
    other.stdin.close()
    assert other.wait() == 0
    assert not (tmp_path / "folder").exists()  # nothing was written there
    with locked(tmp_path / "folder", "a training run"):
        (tmp_path / "folder" / "result").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["result"]


def test_a_killed_holder_is_in_nobodys_way(tmp_path):
    other = holder(tmp_path)
    other.kill()
    other.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path, "a training run"):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK_FILE).exists()


def test_once_in_a_process_too(tmp_path):
    with locked(tmp_path, "a training run"):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), locked(tmp_path, "another"):
            pass
        with locked(tmp_path / "inner", "another"):
            pass
    with locked(tmp_path, "a training run"):
        pass


def test_it_is_let_go_where_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a" / "b", "a training run"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a" / "b", "a training run"):
        pass


def test_a_holder_on_another_machine_is_taken_at_its_word(tmp_path):
    named = {"what": "a training run", "pid": 1, "host": "elsewhere", "boot": "another"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(named))
    with pytest.raises(UserError, match="process 1 on elsewhere.*remove .*.lock"), locked(tmp_path, "a store"):
        pass
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == named


@pytest.mark.parametrize("same", ["host", "boot"])
def test_a_holder_of_this_machine_that_no_longer_runs_is_none(tmp_path, same):
    here = {"host": socket.gethostname(), "boot": locks._boot()}
    named = {"pid": os.getpid(), "host": "elsewhere", "boot": "another"} | {same: here[same]}
    (tmp_path / LOCK_FILE).write_text(json.dumps(named))
    with locked(tmp_path, "a store"):
        pass


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.sampled_from([b"[]", b"null", b'{"pid": []}', b'{"host": 3}', b"{", b"9" * 5000]))
def test_a_damaged_lock_file_never_ends_in_a_traceback(tmp_path, content):
    (tmp_path / LOCK_FILE).write_bytes(content)
    try:
        with locked(tmp_path, "a store"):
            pass
    except UserError as error:
        assert LOCK_FILE in str(error)
        (tmp_path / LOCK_FILE).unlink()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / LOCK_FILE).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError), locked(tmp_path, "a store"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_places_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="choose|check"), locked(place, "a store"):
            pass
    assert (tmp_path / "file").read_text() == "mine"
