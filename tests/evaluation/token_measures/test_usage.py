"""Entropy and use of codes of planted ids."""

import math

import numpy as np
import pytest

from evaluation.token_measures.usage import codes_in_use, dead_codes, entropy_bits, nominal_bits
from tests.evaluation.token_measures.planted import CODES, RATE, coded, plant


def clips_of(folder, draw, count=12, frames=200):
    rng = np.random.default_rng(0)
    return [plant(folder, f"c{i}", draw(rng, frames), split=("test", "train")[i % 2]) for i in range(count)]


def test_uniform_ids_carry_what_they_could(tmp_path):
    made = coded(tmp_path, clips_of(tmp_path, lambda rng, n: rng.integers(0, CODES, n)))
    found, most = entropy_bits(made, "codes"), nominal_bits(made, "codes")
    assert most.estimate.value == RATE * math.log2(CODES) == 200 and most.estimate.stderr is None
    assert found.estimate.value == pytest.approx(200, abs=1) and found.estimate.value < 200
    assert found.chance == pytest.approx(found.estimate.value, abs=1) and 0 < found.estimate.stderr < 1
    assert found.estimate.n == 12 and found.levels[0] * RATE == pytest.approx(found.estimate.value)
    assert codes_in_use(made, "codes").estimate.value == 1.0 and dead_codes(made, "codes").estimate.value == 0


def test_four_codes_of_sixteen(tmp_path):
    made = coded(tmp_path, clips_of(tmp_path, lambda rng, n: np.tile([1, 5, 7, 11], n // 4)))
    assert entropy_bits(made, "codes").estimate.value == pytest.approx(2 * RATE)
    assert entropy_bits(made, "codes").estimate.stderr == pytest.approx(0, abs=1e-9)
    used = codes_in_use(made, "codes")
    assert used.estimate.value == 0.25 and used.chance == 1.0 and used.levels == (0.25,)
    assert dead_codes(made, "codes").estimate.value == 12 and dead_codes(made, "codes").chance == 0


def test_few_ids_cannot_show_all_codes_and_chance_says_so(tmp_path):
    made = coded(tmp_path, [plant(tmp_path, "c", list(range(8)))])
    used = codes_in_use(made, "codes")
    assert used.estimate.value == 0.5 and used.estimate.stderr is None and used.chance < 0.5
    assert entropy_bits(made, "codes").chance < 3 * RATE
