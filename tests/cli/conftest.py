"""A tiny whole model, a tone, and a way to run the command as a person would."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile

from cli import main as command_line
from tests.factories.uniaudio import save_tiny_model


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def tone(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(16_000) * 440 * 2 * np.pi / 16_000), 16_000)
    return path


@pytest.fixture
def uniaudio(capfd, monkeypatch):
    """Run the command in this process: exit status, standard output, standard error."""

    def shown(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

    def run(*arguments: object, typed: str | None = None) -> Result:
        monkeypatch.setattr(sys, "argv", ["uniaudio", *map(str, arguments)])
        monkeypatch.setattr(warnings, "showwarning", shown)  # where people see it, rather than in pytest's summary
        if typed is not None:
            import io

            monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as stop:
            command_line.main()
        out, err = capfd.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    return run
