"""What training the language model does not need is not imported."""

from __future__ import annotations

import subprocess
import sys

from tests import ROOT

ABSENT = ("auditory_sentences.starter", "training.codec", "training.rl", "evaluation", "cli")


def test_training_the_language_model_imports_neither_the_synthesiser_nor_other_trainers():
    program = "import sys, training.lm.train_lm; print(*sys.modules, sep='\\n')"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = result.stdout.split()
    assert "training.lm.train_lm" in modules
    assert [name for name in modules if any(f"{name}.".startswith(f"{absent}.") for absent in ABSENT)] == []


# Beside `uniaudio`, which has transformers' automatic classes read lm.model as soon as they are, any may be first.
FIRST = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in (ROOT / "lm", ROOT / "training" / "lm")
    for path in folder.rglob("*.py")
    if "transformers" in path.read_text()
)


def test_every_module_that_uses_transformers_can_be_the_first_to_be_imported():
    program = """
import importlib, os, sys, torch, uniaudio
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        importlib.import_module(name)
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""
    assert "lm.model" in FIRST
    result = subprocess.run([sys.executable, "-c", program, *FIRST], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split() == [], result.stderr
