"""`uniaudio doctor`: what is installed, what is missing, and what that means."""

import sys
import types

import pytest

from cli import doctor


@pytest.mark.slow  # it imports every package in a process of its own
def test_doctor_finds_every_requirement(uniaudio):
    done = uniaudio("doctor")
    assert done.status == 0
    for need in doctor.NEEDS:
        assert need.distribution in done.out


def test_doctor_says_what_is_missing_and_what_that_means(uniaudio, monkeypatch):
    needs = (doctor.Need("json", "numpy"), doctor.Need("no_such_module", "nothing", "no dancing"))
    monkeypatch.setattr(doctor, "NEEDS", needs)
    done = uniaudio("doctor")
    assert done.status == 0 and "no dancing" in done.out
    monkeypatch.setattr(doctor, "NEEDS", (doctor.Need("no_such_module", "nothing"),))
    done = uniaudio("doctor")
    assert done.status == 1 and "required" in done.out


def test_doctor_survives_what_is_odd(uniaudio, monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(doctor.shutil, "disk_usage", gone)
    monkeypatch.setitem(sys.modules, "half", types.ModuleType("half"))
    monkeypatch.setattr(sys.modules["half"], "__spec__", None)
    needs = (doctor.Need("half", "half", "no half"), doctor.Need("sys", "nothing", "no sys"))
    monkeypatch.setattr(doctor, "NEEDS", needs)
    monkeypatch.setattr(doctor, "_import_fault", lambda module: "no end after 1 s")
    done = uniaudio("doctor")
    assert done.status == 0 and "cannot be looked at" in done.out and "no half" in done.out
    assert "broken" in done.out and "no end" in done.out and "Traceback" not in done.err


def test_a_file_that_may_not_be_set_aside_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "_import_fault", lambda module: "broken")

    def refuse(self, target):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(doctor.Path, "glob", lambda self, pattern: [doctor.Path("x.so")])
    monkeypatch.setattr(doctor.Path, "rename", refuse)
    assert "x.so: Permission denied" in doctor.mend_torchaudio()
