"""Progress: what a person sees of a task that takes long, and that nothing changes by it."""

import pytest

from evaluation.report import progress
from evaluation.report.progress import CHUNK, Progress, chunks, counted, running


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is ten seconds later."""
    times = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


def test_without_a_terminal_a_line_now_and_then(clock, capsys):
    with running(Progress()):
        assert list(counted(iter(range(9)), 9, "clips judged")) == list(range(9))
    lines = capsys.readouterr().out.splitlines()
    assert 1 < len(lines) < 5 and all(line.startswith("      clips judged ") and line.endswith("/9") for line in lines)


def test_chunks_are_counted_by_what_they_hold(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with running(Progress()):
        assert [len(chunk) for chunk in chunks(range(2 * CHUNK + 5), "answers")] == [CHUNK, CHUNK, 5]
    assert capsys.readouterr().out.split("\n")[0] == f"      answers {CHUNK}/{2 * CHUNK + 5}"


def test_a_bar_on_a_terminal_and_none_within_another(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with running(Progress()):
        for _ in counted(range(2), 2, "outer"):
            assert list(counted(range(3), 3, "inner")) == [0, 1, 2]
        assert list(counted(range(1), 1, "after")) == [0]
    said = capsys.readouterr()
    assert "outer" in said.err and "after" in said.err and "inner" not in said.err and said.out == ""


def test_silence_outside_an_evaluation_and_when_asked(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert list(counted(range(5), 5, "x")) == list(range(5))
    with running(Progress(quiet=True)):
        assert list(counted(range(5), 5, "x")) == list(range(5))
        progress._running.get().say("a line")
    assert capsys.readouterr() == ("", "")


def test_an_error_within_ends_the_count(clock):
    with running(Progress()) as _, pytest.raises(ValueError, match="mine"):
        for _ in counted(range(5), 5, "x"):
            raise ValueError("mine")
    with running(Progress()):
        assert list(counted(range(2), 2, "y")) == [0, 1]


def test_nobody_reads_any_more(monkeypatch):
    def gone(line):
        raise BrokenPipeError

    monkeypatch.setattr(progress, "say", gone)
    watched = Progress()
    watched.say("one")
    monkeypatch.setattr(progress, "say", lambda line: pytest.fail("said again"))
    watched.say("two")
