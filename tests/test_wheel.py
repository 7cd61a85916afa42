"""The wheel holds all that the programs read, and what it installs works from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest
import soundfile

from codec.io.shipped import STARTER_MODEL, shipped, shipped_names
from tests import ROOT

PACKAGES = ("codec", "lm", "auditory_sentences", "uniaudio", "evaluation", "training", "cli")
SHIPPED = ("recipes", "assets")  # at the top of a checkout, inside `uniaudio` in the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built once from a copy: a build leaves folders beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, *SHIPPED):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True, timeout=280)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_all_that_is_shipped(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()
    }
    expected = {name for name in expected if "__pycache__" not in name and not name.endswith(".md")}
    expected |= {
        f"uniaudio/{path.relative_to(ROOT).as_posix()}"
        for name in SHIPPED
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    }
    assert expected - held == set()
    assert {name.split("/")[0] for name in held if ".dist-info" not in name} == set(PACKAGES)
    assert wheel.stat().st_size < 60 * 2**20, "more than that goes into a package of data of its own"


@pytest.mark.slow
def test_what_it_installs_works_in_any_folder(wheel, tmp_path):
    installed, folder = tmp_path / "installed", tmp_path / "elsewhere"
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", installed, wheel]
    subprocess.run(command, check=True, timeout=280)
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*arguments: object) -> str:
        command = [sys.executable, installed / "bin/uniaudio", *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import uniaudio; print(uniaudio.__file__, uniaudio.local_folder('starter/codec'))"
    command = [sys.executable, "-P", "-c", where]
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert all(place.startswith(str(installed)) for place in found.stdout.split())
    soundfile.write(folder / "tone.wav", 0.3 * np.sin(np.arange(16_000) / 9), 16_000)
    assert "13 structural frames" in run("tokenize", "tone.wav")
    assert len(run("recipe", "list").splitlines()) == len(shipped_names("recipes"))
    assert "(shipped)" in run("recipe", "check", "starter/stage1")
    assert "--suite" in run("evaluate", "--help")
    if not shipped("assets", STARTER_MODEL):
        pytest.skip("this checkout has no assets/starter/model/config.json: nothing to speak with")
    run("speak", "three seven one", "-o", "out.wav")
    assert soundfile.info(folder / "out.wav").frames > 0 and run("transcribe", "out.wav").strip()


def test_every_kind_of_file_beside_the_code_is_declared():
    """The quick look: each file that is no code matches a pattern of the package data."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".md"):
                owner = path.parent
                while not (owner / "__init__.py").is_file():
                    owner = owner.parent
                patterns = data.get(owner.relative_to(ROOT).as_posix().replace("/", "."), [])
                assert any(path.relative_to(owner).match(pattern) for pattern in patterns), path
    assert all(data[f"uniaudio.{name}"] == ["**/*"] for name in SHIPPED)
