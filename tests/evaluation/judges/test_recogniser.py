"""The independent recogniser and its grammars."""

import numpy as np
import pytest

from evaluation.judges.recogniser import bigram_model, grammar, recognise
from evaluation.metrics.registry import METRICS
from tests.factories.evaluation import starter_speech


def test_digits_are_recognised_in_any_order_alike():
    rules = grammar("digits")
    clips = starter_speech(12)
    words = [recognise(wave, rules) for _, wave in clips]
    assert METRICS["word_accuracy"].score(words, [text for text, _ in clips]).value > 0.5
    backwards = [recognise(wave, rules) for _, wave in reversed(clips)]
    assert backwards[::-1] == words


def test_a_grammar_of_one_digit_gives_one_digit():
    assert all(len(recognise(wave, grammar("digit")).split()) <= 1 for _, wave in starter_speech(4))


def test_a_grammar_of_a_corpus_has_its_words():
    texts = ["the red bird sings", "open the door", "my mother likes milk"]
    words = recognise(starter_speech(1, content="sentence")[0][1], grammar("corpus", texts * 5))
    assert set(words.split()) <= set(" ".join(texts).split())


@pytest.mark.parametrize("wave", [np.zeros(24_000), np.zeros(0), np.full(2400, np.nan)])
def test_silence_has_no_words(wave):
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
