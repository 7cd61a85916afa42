"""How a program ends: every kind of error on every kind of stream, in this process."""

import io
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.io.errors import UserError, of_system
from codec.io.terminal import LONGEST, complain, one_line, printable, run_program, say, shown

TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of text


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Standard streams, warnings and signals are those of before."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.delenv("UNIAUDIO_TRACEBACK", raising=False)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def end_of(function) -> int:
    with pytest.raises(SystemExit) as stop:
        run_program("program", function)
    return stop.value.code


def raising(error: BaseException):
    def function():
        raise error

    return function


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("x.wav: no such file; check the path"), 2, "program: x.wav: no such file; check the path"),
        (OSError(28, "No space left on device", "a/b"), 2, "program: a/b: No space left on device; make room"),
        (PermissionError(13, "Permission denied", "a"), 2, "program: a: Permission denied; change its permissions"),
        (OSError("a library's own words"), 2, "program: a library's own words"),
        (MemoryError(), 2, "not enough memory"),
        (OutOfMemoryError("CUDA"), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "not enough memory"),
        (KeyboardInterrupt(), 130, "program: stopped"),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("a last word"), 1, "program: a last word"),
        (BrokenPipeError(32, "Broken pipe"), 2, "program: Broken pipe"),  # not of standard output, which is well
        (BaseExceptionGroup("", [UserError("in a group")]), 2, "program: in a group"),
        (ExceptionGroup("", [ExceptionGroup("", [OSError(2, "No such file", "x")])]), 2, "program: x: No such file"),
        (BaseExceptionGroup("", [UserError("of a worker"), KeyboardInterrupt()]), 130, "program: stopped"),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_a_status(capsys, error, status, said):
    assert end_of(raising(error)) == status
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == bool(said) and "Traceback" not in shown


@pytest.mark.parametrize(
    "error",
    [ValueError("a fault"), RuntimeError("a fault"), ExceptionGroup("", [UserError("mendable"), KeyError("a fault")])],
)
def test_a_fault_of_the_program_is_not_hidden(error):
    with pytest.raises(type(error)):
        run_program("program", raising(error))


def test_the_place_of_an_error_is_shown_where_that_is_asked_for(monkeypatch):
    monkeypatch.setenv("UNIAUDIO_TRACEBACK", "1")
    with pytest.raises(UserError):
        run_program("program", raising(UserError("x")))


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_the_status_that_is_returned(returned, status):
    assert end_of(lambda: returned) == status


def stream_of(handle: int, **how) -> io.TextIOWrapper:
    return io.TextIOWrapper(os.fdopen(handle, "wb"), **{"encoding": "utf-8"} | how)


@pytest.fixture
def broken():
    """A stream whose reader has gone, with a handle of its own."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = stream_of(writer)
    yield stream
    stream.close()


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_has_gone_is_a_quiet_end(broken, monkeypatch, capsys, flush):
    monkeypatch.setattr(sys, "stdout", broken)
    assert end_of(lambda: print("x", flush=flush)) == 0
    assert capsys.readouterr().err == ""


def test_a_reader_of_errors_that_has_gone_does_not_change_the_status(broken, monkeypatch):
    monkeypatch.setattr(sys, "stderr", broken)
    assert end_of(raising(UserError("unheard"))) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("flush", [True, False])
def test_an_output_that_cannot_be_written_is_no_success(monkeypatch, capsys, flush):
    with stream_of(os.open("/dev/full", os.O_WRONLY)) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert end_of(lambda: print("x", flush=flush)) == 2
        assert "program: standard output: No space left on device; make room" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_any_name_can_be_shown_on_any_terminal(tmp_path, monkeypatch, encoding):
    name = "日本 \udcff é.wav"
    handles = [os.open(tmp_path / n, os.O_CREAT | os.O_RDWR) for n in ("out", "err")]
    out, err = (stream_of(handle, encoding=encoding) for handle in handles)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def function():
        print(name)
        raise UserError(name)

    assert end_of(function) == 2
    out.close()
    err.close()
    assert b".wav" in (tmp_path / "out").read_bytes() and b"program: " in (tmp_path / "err").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_is_asked_to_end_closes_what_is_open(capsys, number):
    signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have had it ignored
    closed = []

    def function():
        try:
            os.kill(os.getpid(), number)
            threading.Event().wait(5)
        finally:
            closed.append(True)

    assert end_of(function) == 143 and closed
    assert "stopped" in capsys.readouterr().err
    assert signal.getsignal(number) == signal.SIG_DFL


def test_who_wants_to_be_left_alone_by_a_signal_is(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    assert end_of(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0


def test_a_program_runs_in_any_thread(capsys):
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(end_of(raising(UserError("x")))))
    thread.start()
    thread.join()
    assert statuses == [2]


def test_streams_that_are_closed_from_the_start():
    """No library's output ends in a file that got the number of a closed stream."""
    program = (
        "import os, sys\n"
        "from codec.io.terminal import run_program\n"
        "def function():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        for number in (1, 2):\n"
        "            os.write(number, b'noise')\n"
        "        print('a line'), sys.stdin.read(), sys.stderr.write('another')\n"
        "        return 5 if file.fileno() > 2 else 6\n"
        "run_program('program', function)\n"
    )
    script = 'exec "$0" -c "$1" /dev/null <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", script, sys.executable, program], check=False).returncode == 5


def test_a_message_of_any_length_keeps_its_end(capsys):
    complain("x" * 10**6 + "; make room", "program")
    said = capsys.readouterr().err
    assert len(said) < LONGEST + 100 and said.endswith("; make room\n")


def test_no_name_of_a_file_passes_for_a_line_of_the_program(capsys):
    complain("a\nuniaudio: done")
    assert [line.startswith("uniaudio") for line in capsys.readouterr().err.splitlines()] == [True, False]


def test_warnings_are_lines_of_the_program():
    assert end_of(lambda: 0) == 0
    said = warnings.formatwarning(UserWarning("odd \x1b[31m\nname"), UserWarning, "file.py", 1)
    assert said == "program: odd \\x1b[31m\\nname\n"


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=40))
def test_what_is_printable_does_nothing_to_a_terminal(text):
    for made in (printable(text), one_line(text), shown(text)):
        made.encode("utf-8")
        assert not any(ord(c) < 32 and c not in "\n\t" or 0x7F <= ord(c) < 0xA0 or c in TURNS for c in made)
    assert "\n" not in one_line(text)
    assert printable(printable(text)) == printable(text)


def test_a_pipe_whose_reader_has_gone_ends_quietly(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as stop:
            run_program("program", lambda: say("a line"))
    assert stop.value.code == 0
    assert capsys.readouterr().err == ""


def test_a_library_of_another_torch_is_named_with_its_remedy():
    """What `import torchaudio` raises beside a torch that its compiled part was not made for."""
    said = str(of_system(OSError("Could not load this library: /env/torchaudio/lib/_torchaudio.so")))
    assert said.startswith("Could not load this library: /env/torchaudio/lib/_torchaudio.so; ")
    assert said.endswith("it was built for another torch; run `uniaudio doctor --fix`")
