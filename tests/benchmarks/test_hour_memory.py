"""A long file is encoded in bounded memory, by every registered tokenizer."""

import json
import subprocess
import sys

import pytest

from tests import ROOT
from tests.codec.test_contract import MADE


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", sorted(set(MADE) - {"streams"}))
def test_memory_does_not_grow_with_the_length(kind, tmp_path):
    MADE[kind]().save_pretrained(tmp_path / "codec")
    command = [sys.executable, str(ROOT / "benchmarks" / "hour_memory.py"), "--codec", str(tmp_path / "codec")]
    done = subprocess.run([*command, "--minutes", "5", "120"], capture_output=True, text=True, check=True)
    short, long = (json.loads(line) for line in done.stdout.splitlines())
    assert (short["type"], short["minutes"], long["minutes"]) == (kind, 5, 120)
    # Two hours of float32 sound alone would be 440 MiB and more.
    assert 0 < long["adds_mib"] < short["adds_mib"] + 64
