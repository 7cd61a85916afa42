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
