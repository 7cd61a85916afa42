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
from evaluation.judges.classifier import ShrinkageLDA
from evaluation.judges.pool import Judges, SignalClassifier, mentioned, named
from evaluation.judges.recogniser import bigram_model, grammar, recognise
from evaluation.judges.signal_features import NUM_FEATURES, fundamental, signal_features
from evaluation.metrics.registry import METRICS
from tests.factories.evaluation import INSTRUMENTS as TONES
from tests.factories.evaluation import SOUNDS, voice

RATE = 24_000
ACCENTS = {"english": ["english", "british"], "northern english": ["northern english"], "none": ["no accent"]}


# --- text


def test_an_answer_names_one_value_or_is_not_parsed():
    phrases = {"dog": ["dog", "barking"], "cat": ["cat"]}
    assert named("A dog, barking!", phrases) == "dog"
    assert named("a cat and a dog", phrases) is None
    assert named("a bird", phrases) is None
    assert named("hotdog", phrases) is None  # whole words only
    assert named(None, phrases) is None and named("", phrases) is None


def test_longer_phrases_use_up_their_words():
    assert mentioned("a northern english voice", ACCENTS) == {"northern english"}
    assert mentioned("northern english and english", ACCENTS) == {"northern english", "english"}


# --- the recogniser


def speech(count, split="dev", content="digits"):
    found = []
    for index in range(200):
        found += [
            (c.text, w)
            for c, w in render(Job("speech", split, index), 0, StarterSize())
            if c.labels["content"] == content
        ]
        if len(found) >= count:
            return found[:count]


def test_recogniser_hears_digits_in_any_order_alike():
    rules = grammar("digits")
    clips = speech(12)
    heard = [recognise(wave, rules) for _, wave in clips]
    assert METRICS["word_accuracy"].score(heard, [text for text, _ in clips]).value > 0.5
    backwards = [recognise(wave, rules) for _, wave in reversed(clips)]
    assert backwards[::-1] == heard


def test_recogniser_of_one_digit_hears_one_digit():
    assert all(len(recognise(wave, grammar("digit")).split()) <= 1 for _, wave in speech(4))


def test_recogniser_with_the_corpus_words():
    texts = ["the red bird sings", "open the door", "my mother likes milk"]
    heard = recognise(speech(1, content="sentence")[0][1], grammar("corpus", texts * 5))
    assert set(heard.split()) <= set(" ".join(texts).split())


@pytest.mark.parametrize("wave", [np.zeros(24_000), np.zeros(0), np.full(2400, np.nan)])
def test_recogniser_hears_nothing_in_nothing(wave):
    assert recognise(wave.astype(np.float32), grammar("digits")) == ""


def test_bigram_model_is_a_distribution():
    lines = bigram_model(["one two", "one three", "Two!"]).splitlines()
    cut = lines.index("\\2-grams:")
    single = {w: float(p) for p, w, *_ in (line.split("\t") for line in lines[5 : cut - 1])}
    assert sum(10**p for w, p in single.items() if w != "<s>") == pytest.approx(1, abs=1e-3)
    pairs = {tuple(w.split()): float(p) for p, w in (line.split("\t") for line in lines[cut + 1 : -3] if line)}
    after_one = {w: 10**p for (first, w), p in pairs.items() if first == "one"}
    assert after_one == pytest.approx({"two": 0.25, "three": 0.25}, abs=1e-3)  # (1 - 0.5) / 2
    back_off = next(float(line.split("\t")[2]) for line in lines if line.split("\t")[1:2] == ["one"])
    unseen = sum(10**p for w, p in single.items() if w not in ("<s>", "two", "three"))
    assert 10**back_off * unseen + 0.5 == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="at least one text"):
        bigram_model(["", "?"])


# --- signal measurements


@pytest.mark.parametrize("hertz", [60.0, 110.0, 220.0, 440.5, 1000.0])
def test_fundamental_of_a_rich_tone(hertz):
    time = np.arange(RATE) / RATE
    tone = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8) if hertz * k < 11_000)
    pitch, periodicity = fundamental(tone)
    assert np.median(pitch) == pytest.approx(hertz, rel=0.01) and np.median(periodicity) > 0.9


def test_noise_is_not_periodic():
    assert np.median(fundamental(np.random.default_rng(0).standard_normal(RATE))[1]) < 0.5


@pytest.mark.parametrize(
    "wave", [np.zeros(0), np.zeros(1), np.zeros(RATE), np.full(500, np.nan), np.ones(RATE), np.eye(1, 5000)[0]]
)
def test_features_of_odd_sounds_are_finite(wave):
    features = signal_features(wave)
    assert np.isfinite(features).all() and features.shape == signal_features(np.ones(10)).shape


def test_features_do_not_depend_on_level():
    wave = voice(np.random.default_rng(0), 1.0, high=True)
    assert signal_features(0.1 * wave) == pytest.approx(signal_features(wave), abs=0.05)


def test_classifier_separates_what_a_line_separates_and_weighs_classes_alike():
    rng = np.random.default_rng(0)
    centres = {"a": (0, 0, 0), "b": (3, 0, 0), "c": (0, 3, 0)}
    counts = {"a": 90, "b": 10, "c": 10}
    x = np.concatenate([rng.standard_normal((counts[k], 3)) * 0.7 + v for k, v in centres.items()])
    y = [k for k in centres for _ in range(counts[k])]
    model = ShrinkageLDA.fit(x, y, shrinkage=0.01)
    assert model.predict(np.array(list(centres.values()), dtype=float)) == ["a", "b", "c"]
    assert model.predict([[1.7, 0, 0]]) == ["b"]  # nearer to b, though a is nine times as common
    with pytest.raises(ValueError, match="at least two labels"):
        ShrinkageLDA.fit(x, ["a"] * len(x))


def test_signal_judge_on_tones_it_was_not_fit_on(tmp_path):
    makers = SOUNDS | TONES

    def examples(seed, count):
        rng = np.random.default_rng(seed)
        return [(make(rng, 0.5).astype(np.float32), name) for name, make in makers.items() for _ in range(count)]

    with Judges(Cache(tmp_path), processes=1) as judges:
        judge = SignalClassifier(judges, *zip(*examples(0, 5), strict=True))
        waves, names = zip(*examples(1, 4), strict=True)
        assert judge.predict(waves) == list(names)
        assert judge.predict([None, waves[0]]) == [None, names[0]]
        assert judge.choices == tuple(sorted(makers))


def test_what_was_heard_once_is_not_heard_again(tmp_path, monkeypatch):
    calls = []
    measured = {n: np.full(NUM_FEATURES, float(n)) for n in (10, 20)}
    monkeypatch.setattr("evaluation.judges.pool.signal_features", lambda w: calls.append(1) or measured[len(w)])
    waves = [np.ones(10, np.float32), np.ones(20, np.float32), np.ones(10, np.float32)]
    for _ in range(2):
        with Judges(Cache(tmp_path), processes=1) as judges:
            assert [f[0] for f in judges.features(waves)] == [10.0, 20.0, 10.0]
    assert len(calls) == 2  # the third is the first, and the second round is remembered


@pytest.mark.slow
def test_judges_in_processes_hear_the_same(tmp_path):
    waves = [wave for _, wave in speech(10)]
    with Judges(Cache(tmp_path / "a"), processes=1) as one, Judges(Cache(tmp_path / "b"), processes=2) as two:
        rules = grammar("digits")
        assert one.words(waves, rules) == two.words(waves, rules)
        assert all(np.array_equal(a, b) for a, b in zip(one.features(waves), two.features(waves), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "label", "values"), [("sound", "class", CLASSES), ("music", "instrument", INSTRUMENTS)]
)
def test_signal_judge_knows_the_starters_held_out_sounds(tmp_path, kind, label, values):
    def examples(split, count):
        pairs = [render(Job(kind, split, i), 0, StarterSize())[0] for i in range(count * len(values))]
        return [wave for _, wave in pairs], [clip.labels[label] for clip, _ in pairs]

    with Judges(Cache(tmp_path), processes=1) as judges:
        judge = SignalClassifier(judges, *examples("train", 12))
        waves, names = examples("test", 6)
        right = np.mean([a == b for a, b in zip(judge.predict(waves), names, strict=True)])
    assert right >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_judges_processes_end_with_the_one_that_started_them(tmp_path, number):
    """Ctrl-C reaches all processes of a terminal: the judges' leave it to ours, and nobody prints where it was."""
    program = (
        "import numpy as np, sys, time\n"
        "from evaluation.cache import Cache\n"
        "from evaluation.judges import Judges\n"
        "from evaluation.recogniser import grammar\n"
        "from codec.terminal import run_program\n"
        "def function():\n"
        "    waves = np.random.default_rng(0).standard_normal((400, 48_000)).astype(np.float32)\n"
        "    with Judges(Cache(sys.argv[1]), 2) as judges:\n"
        "        judges.words(list(waves), grammar('digits'))\n"
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
    said = child.communicate(timeout=60)[1]  # closed when the last of them has ended
    assert "Traceback" not in said
    assert child.returncode == (130 if number == signal.SIGINT else -9)
    assert number == signal.SIGKILL or said == "judges: stopped\n"
