"""The console script in a folder whose packages have our names: every verb runs our code, never theirs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tests import ROOT

SCRIPT = Path(sys.executable).with_name("uniaudio")
DECOYS = ("training", "codec", "cli", "evaluation", "lm", "uniaudio", "auditory_sentences")


@pytest.fixture
def run(tmp_path):
    """Run the installed command among decoys; its standard output."""
    assert SCRIPT.is_file(), "the project is not installed: make setup"
    for name in DECOYS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the decoy {name} was imported')\n")

    def run(*arguments: object) -> str:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [SCRIPT, *map(str, arguments)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0 and "decoy" not in done.stdout + done.stderr, done.stderr
        return done.stdout

    return run


def test_decoys_are_not_imported_by_what_is_read_first(run):
    assert "synthesise" in run("corpus", "--help")
    assert "--suite" in run("evaluate", "--help")
    assert "starter/codec (shipped)" in run("recipe", "check", "starter/stage1")


@pytest.mark.slow
def test_decoys_are_not_imported_by_verbs_that_work(run, tmp_path):
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(np.arange(16_000) / 9), 16_000)
    assert "13 structural frames" in run("tokenize", "tone.wav")
    assert "1.00 s" in run("detokenize", "tone.safetensors", "--steps", 1)
    run("corpus", "synthesise", "--small", "--processes", 2, "--out", "corpus")
    (tmp_path / "text.txt").write_text("the cat sat\non the mat\nthree seven one\n")
    recipe = {
        "kind": "text_model", "out": "run", "steps": 2, "texts": ["text.txt"], "tokenizer": "starter/text_model",
        "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "mlp": 16, "context": 16, "batch": 2,
        "engine": {"micro_batches": 2},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    assert run("train", "tiny.yaml", "--processes", 2).splitlines()[-1] == "run/model"


@pytest.mark.slow  # it imports every library in a process of its own
def test_the_doctor_looks_at_the_libraries_not_at_decoys(run, tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('the decoy torch was imported')\n")
    assert "torch" in run("doctor")
