"""Ids that stay, of recordings whose ids after the change are known."""

import numpy as np
import pytest

from evaluation.token_measures.stability import stable_gain, stable_noise, stable_shift
from tests.evaluation.token_measures.planted import coded, plant


def test_a_constant_level_stays_when_it_is_shifted_and_not_when_it_is_halved(tmp_path):
    made = coded(tmp_path, [plant(tmp_path, f"c{i}", 10 * [i]) for i in (4, 6, 8, 10)])
    shifted, quieter = stable_shift(made, "codes"), stable_gain(made, "codes")
    assert shifted.estimate.value == 1.0 and shifted.levels == (1.0,) and shifted.chance == 0.0
    assert quieter.estimate.value == 0.0 and quieter.estimate.n == 4


def test_silence_stays_silent_and_halves_of_clips_count_by_their_frames(tmp_path):
    made = coded(tmp_path, [plant(tmp_path, "a", 30 * [0]), plant(tmp_path, "b", 10 * [8])])
    found = stable_gain(made, "codes")
    assert found.estimate.value == pytest.approx(0.75) and found.estimate.stderr > 0
    assert found.chance == 0.0


def test_chance_is_the_share_of_equal_ids_of_other_clips(tmp_path):
    rng = np.random.default_rng(0)
    made = coded(tmp_path, [plant(tmp_path, f"c{i}", rng.integers(0, 4, 400)) for i in range(6)])
    assert stable_shift(made, "codes").chance == pytest.approx(0.25, abs=0.04)


def test_noise_is_thirty_decibels_below_the_clip_and_the_same_each_time(tmp_path):
    clips = [plant(tmp_path, f"c{i}", 100 * [8]) for i in range(3)]
    # The mean of 480 samples of noise moves a level by 8 / 32 / sqrt(480) steps: it stays. At 0 dB it would not.
    assert stable_noise(coded(tmp_path, clips), "codes").estimate.value == 1.0
    from evaluation.token_measures import stability

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stability, "SNR_DB", 0.0)
        first, second = (stable_noise(coded(tmp_path, clips), "codes").estimate.value for _ in range(2))
    assert first == second == pytest.approx(0.83, abs=0.08)  # |N(0, 8 / sqrt(480))| < 0.5: 83 %
