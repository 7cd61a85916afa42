"""`uniaudio chat`: a terminal or a pipe around a session."""

import io
import sys
import types

import pytest

from cli.chat import verb
from cli.chat.session import Session


def test_over_a_pipe_answers_go_out_and_a_failure_shows_in_the_status(uniaudio, model_folder, tmp_path):
    typed = "# a remark\n\n/set max_seconds 1\n/say three\n/quit\n/never reached\n"
    done = uniaudio("chat", "--model", model_folder, "--out", tmp_path, typed=typed)
    assert done.status == 0 and "say-001.wav" in done.out and ">" not in done.out
    done = uniaudio("chat", "--model", model_folder, "--out", tmp_path, typed="/bogus\n/set seed 3\n")
    assert done.status == 2 and "/bogus" in done.err and "seed 3" in done.out


class FakeSession:
    """Answers a line, or raises what the line names."""

    commands = Session.commands
    errors = {"disk": OSError(28, "No space left on device"), "memory": MemoryError(), "stop": KeyboardInterrupt()}

    def __init__(self, *_):
        pass

    def respond(self, line):
        if line in self.errors:
            raise self.errors[line]
        yield f"heard {len(line)}"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(verb, "load_model", lambda path: None)
    monkeypatch.setattr("cli.chat.session.Session", FakeSession)


def test_nothing_that_a_line_meets_ends_the_session(uniaudio, fake, tmp_path, monkeypatch):
    stdin = b"disk\nmemory\n\xff\xfe\n\0\n" + b"x" * 3_000_000 + b"\nlast"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
    done = uniaudio("chat", "--out", tmp_path)
    assert done.status == 2 and done.out.splitlines() == ["heard 2", "heard 1", "heard 4"]
    assert [word in line for word, line in zip(["No space", "memory", "1000000"], done.err.splitlines(), strict=True)]


def test_ctrl_c_ends_a_chat_over_a_pipe_and_not_one_at_a_terminal(uniaudio, fake, tmp_path, monkeypatch):
    done = uniaudio("chat", "--out", tmp_path, typed="stop\nlast\n")
    assert done.status == 130 and done.out == "" and done.err == "uniaudio: stopped\n"
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(verb, "_typed_lines", lambda commands: iter(["stop", "disk", "last"]))
    done = uniaudio("chat", "--out", tmp_path)
    assert done.status == 0 and "(stopped" in done.out and "heard 4" in done.out


@pytest.mark.parametrize("state", ["file", "folder", "damaged", "no home"])
def test_a_history_that_cannot_be_kept_ends_no_session(capfd, tmp_path, monkeypatch, state):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    if state == "file":
        (tmp_path / "uniaudio").write_text("precious")
    elif state == "folder":
        (tmp_path / "uniaudio/history").mkdir(parents=True)
    elif state == "damaged":
        (tmp_path / "uniaudio").mkdir()
        (tmp_path / "uniaudio/history").write_bytes(b"\xff\0\x80" * 99)
    else:
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setattr(verb.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    lines = iter(["one", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), KeyboardInterrupt(), "two", EOFError()])

    def typed(prompt):
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)
    assert list(verb._typed_lines(["/say"])) == ["one", "two"]
