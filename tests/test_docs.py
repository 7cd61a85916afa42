"""The first Python block of every page runs as written, in a fresh interpreter, in a folder with one recording."""

import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from codec.io.shipped import STARTER_MODEL, shipped
from tests import ROOT
from tests.factories.uniaudio import save_tiny_model

BLOCKS = {
    page.relative_to(ROOT).as_posix(): blocks[0]
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
}


@pytest.mark.slow  # each loads the libraries and a model
@pytest.mark.parametrize("page", BLOCKS)
def test_the_first_python_block_runs_as_written(page, tmp_path):
    soundfile.write(tmp_path / "clip.wav", 0.3 * np.sin(np.arange(24_000) / 9), 24_000)
    if not shipped("assets", STARTER_MODEL):  # a checkout without the trained one: a folder of that name comes first
        save_tiny_model(tmp_path / STARTER_MODEL)
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[page]], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_pages_have_blocks_to_run():
    assert {"docs/transformers.md", "docs/training.md"} <= set(BLOCKS)
