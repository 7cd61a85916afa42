"""Key and tempo of tones whose key and tempo are known, and of the starter's own melodies."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from auditory_sentences.starter.jobs import DEMO, render
from auditory_sentences.starter.rendering import Job
from evaluation.judges.music import key_of, tempo_of
from evaluation.metrics.registry import METRICS
from tests import ROOT

pytest.importorskip("librosa")
pytest.importorskip("mir_eval")


def tone(semitone, seconds):
    """A decaying note with four partials, semitones above C4."""
    t = np.arange(round(seconds * 24_000)) / 24_000
    hz = 261.626 * 2 ** (semitone / 12)
    return np.exp(-5 * t) * sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 5))


@pytest.mark.parametrize("tonic", [0, 3, 9])
@pytest.mark.parametrize(
    ("mode", "steps"), [(0, (0, 4, 7, 5, 9, 7, 2, 4, 11, 0)), (1, (0, 3, 7, 5, 8, 7, 2, 3, 11, 0))]
)
def test_a_scale_tells_its_key(tonic, mode, steps):
    melody = np.concatenate([tone(tonic + step, 0.4) for step in (*steps, 0, 7, 0)])
    assert key_of(melody) == [float(tonic), float(mode)]


@pytest.mark.parametrize("bpm", [72, 110, 168])
def test_beats_tell_their_tempo(bpm):
    wave = np.concatenate([tone(0, 60 / bpm) for _ in range(12)])
    (found,) = tempo_of(wave)
    assert METRICS["tempo_accuracy"].measure([found], str(bpm)) == (1.0, 1.0)


@pytest.mark.parametrize("samples", [0, 10, 6_000, 48_000])
def test_silence_has_neither(samples):
    assert key_of(np.zeros(samples)) == tempo_of(np.zeros(samples)) == []


def test_the_starters_melodies_are_heard_better_than_chance():
    """The ceiling of the task music_key_tempo: short melodies on one instrument, of which a key is not sure."""
    clips = [render(Job("music", "test", index), 0, DEMO)[0] for index in range(24)]
    labels = [(clip.clip.labels["key"], clip.clip.labels["bpm"]) for clip in clips]
    key = METRICS["key_score"].score([key_of(clip.wave) for clip in clips], [key for key, _ in labels])
    tempi = [tempo_of(clip.wave) for clip in clips]
    tempo = METRICS["tempo_octave_accuracy"].score(tempi, [bpm for _, bpm in labels])
    assert key.value > 0.3 and tempo.value > 0.8  # chance: 0.13 and 0.4


@pytest.mark.slow
def test_processes_that_compile_at_once_leave_a_cache_that_can_be_read(tmp_path):
    program = "import numpy as np; from evaluation.judges.music import key_of; print(key_of(np.sin(np.arange(48000))))"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    start = partial(subprocess.Popen, [sys.executable, "-c", program], cwd=ROOT, env=environment)
    assert [process.wait() for process in [start() for _ in range(3)]] == [0, 0, 0]
    assert start().wait() == 0
