"""Length, pitch and level of speech, as an edit changes them."""

import numpy as np
import pytest

from auditory_sentences.starter.jobs import ALL_TASKS, render
from auditory_sentences.starter.related import EDITS, edit_of
from auditory_sentences.starter.rendering import Job
from evaluation.judges.manner import manner
from evaluation.metrics.registry import METRICS


def buzz(hz, seconds, level):
    """A pulse train with a formant: periodic at hz, of that many dB."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    wave = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, int(4000 / hz)))
    return wave / np.sqrt(np.mean(wave**2)) * 10 ** (level / 20)


@pytest.mark.parametrize(("hz", "seconds", "level"), [(100, 1.0, -20), (220, 0.5, -30), (150, 2.0, -12)])
def test_a_buzz_is_as_long_as_high_and_as_loud_as_it_is(hz, seconds, level):
    silence = np.zeros(6_000)
    found = manner(np.concatenate([silence, buzz(hz, seconds, level), silence]))
    assert found[0] == pytest.approx(seconds, abs=0.06)  # the windows at both ends
    assert found[1] == pytest.approx(hz, rel=0.02)
    assert found[2] == pytest.approx(level, abs=0.5)


@pytest.mark.parametrize("samples", [0, 1, 500, 24_000])
def test_silence_has_no_manner(samples):
    assert manner(np.zeros(samples)) == []


def test_noise_has_no_pitch():
    assert manner(0.1 * np.random.default_rng(0).standard_normal(24_000))[1] == 0.0


def test_the_corpus_own_edits_are_heard():
    """The ceiling of the evaluation: all but a few of the edits that the starter corpus makes are told right."""
    told = []
    for index in range(3 * len(EDITS)):
        before, after = render(Job("edit", "test", index), 0, ALL_TASKS)
        given = manner(before.wave)
        measured = METRICS["edit_direction"].measure(manner(after.wave), (edit_of(after.clip.instruction), given))
        unchanged = METRICS["edit_direction"].measure(given, (edit_of(after.clip.instruction), given))
        assert unchanged is None or unchanged[0] == 0
        told += [measured[0]] if measured else []
    assert len(told) == 18 and np.mean(told) > 0.85
