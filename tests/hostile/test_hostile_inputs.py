"""Generated bad input for every reader and verb: no traceback, no hang, no wrong success, nobody's file changed.

UNIAUDIO_TRIALS=100 python -m pytest tests/hostile -m ""       # so many of each kind, seeds from 0
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.trials import fault_of
from tests.hostile.world import World, make_world

FEW = 4  # of each kind in every run of the tests
MANY = int(os.environ.get("UNIAUDIO_TRIALS", "75"))  # of each kind in the slow one: over a thousand in all


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def faults(kind: str, seeds: range, world: World, folder: Path) -> list[str]:
    """What went wrong with the trials of some seeds, each named so that it can be made again."""
    found = []
    for seed in seeds:
        scratch = folder / f"{seed}"
        (scratch / "inputs").mkdir(parents=True)
        trial = ATTACKS[kind](world, scratch / "inputs", Random(f"{kind} {seed}"))
        fault = fault_of(trial, scratch)
        if fault:
            found.append(f"{kind}, seed {seed} ({trial.what[:200]}): {fault[:300]}")
    return found


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_bad_input_is_answered(kind, world, tmp_path):
    assert faults(kind, range(FEW), world, tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_much_bad_input_is_answered(kind, world, tmp_path):
    assert faults(kind, range(FEW, MANY), world, tmp_path) == []
