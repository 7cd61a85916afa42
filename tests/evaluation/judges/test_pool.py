"""The judges: what they measure is kept, their processes end."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from auditory_sentences.starter.jobs import Job, StarterSize, render
from auditory_sentences.starter.music import INSTRUMENTS
from auditory_sentences.starter.sounds import CLASSES
from evaluation.cache import Cache
from evaluation.judges.pool import Judges, SignalClassifier
from evaluation.judges.recogniser import grammar
from evaluation.judges.signal_features import NUM_FEATURES
from tests.factories.evaluation import INSTRUMENTS as TONES
from tests.factories.evaluation import SOUNDS, starter_speech

RATE = 24_000


def test_signal_classifier_on_tones_it_was_not_fit_on(tmp_path):
    makers = SOUNDS | TONES

    def examples(seed, count):
        rng = np.random.default_rng(seed)
        return [(make(rng, 0.5).astype(np.float32), name) for name, make in makers.items() for _ in range(count)]

    with Judges(Cache(tmp_path), processes=1) as judges:
        classifier = SignalClassifier(judges, *zip(*examples(0, 5), strict=True))
        waves, names = zip(*examples(1, 4), strict=True)
        assert classifier.predict(waves) == list(names)
        assert classifier.predict([None, waves[0]]) == [None, names[0]]
        assert classifier.choices == tuple(sorted(makers))


def test_what_was_measured_once_is_not_measured_again(tmp_path, monkeypatch):
    calls = []
    measured = {n: np.full(NUM_FEATURES, float(n)) for n in (10, 20)}
    monkeypatch.setattr("evaluation.judges.pool.signal_features", lambda w: calls.append(1) or measured[len(w)])
    waves = [np.ones(10, np.float32), np.ones(20, np.float32), np.ones(10, np.float32)]
    for _ in range(2):
        with Judges(Cache(tmp_path), processes=1) as judges:
            assert [f[0] for f in judges.features(waves)] == [10.0, 20.0, 10.0]
    assert len(calls) == 2  # the third is the first, and the second round is in the cache


@pytest.mark.slow
def test_judges_in_processes_give_the_same(tmp_path):
    waves = [wave for _, wave in starter_speech(10)]
    with Judges(Cache(tmp_path / "a"), processes=1) as one, Judges(Cache(tmp_path / "b"), processes=2) as two:
        rules = grammar("digits")
        assert one.transcripts(waves, rules) == two.transcripts(waves, rules)
        assert all(np.array_equal(a, b) for a, b in zip(one.features(waves), two.features(waves), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "label", "values"), [("sound", "class", CLASSES), ("music", "instrument", INSTRUMENTS)]
)
def test_signal_classifier_knows_the_starters_held_out_sounds(tmp_path, kind, label, values):
    def examples(split, count):
        pairs = [render(Job(kind, split, i), 0, StarterSize())[0] for i in range(count * len(values))]
        return [wave for _, wave, _ in pairs], [clip.labels[label] for clip, _, _ in pairs]

    with Judges(Cache(tmp_path), processes=1) as judges:
        classifier = SignalClassifier(judges, *examples("train", 12))
        waves, names = examples("test", 6)
        right = np.mean([a == b for a, b in zip(classifier.predict(waves), names, strict=True)])
    assert right >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_judges_processes_end_with_the_one_that_started_them(tmp_path, number):
    """Ctrl-C reaches all processes of a terminal: the judges' ignore it, and none prints a traceback."""
    program = (
        "import numpy as np, sys, time\n"
        "from evaluation.cache import Cache\n"
        "from evaluation.judges.pool import Judges\n"
        "from evaluation.judges.recogniser import grammar\n"
        "from codec.io.terminal import run_program\n"
        "def function():\n"
        "    waves = np.random.default_rng(0).standard_normal((400, 48_000)).astype(np.float32)\n"
        "    with Judges(Cache(sys.argv[1]), 2) as judges:\n"
        "        judges.transcripts(list(waves), grammar('digits'))\n"
        "if __name__ == '__main__':\n"
        "    run_program('judges', function)\n"
    )
    script = tmp_path / "judge.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    child = subprocess.Popen(
        [sys.executable, script, tmp_path / "cache"], stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cache/*/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    printed = child.communicate(timeout=60)[1]  # closed when the last of them has ended
    assert "Traceback" not in printed
    assert child.returncode == (130 if number == signal.SIGINT else -9)
    assert number == signal.SIGKILL or printed == "judges: stopped\n"
