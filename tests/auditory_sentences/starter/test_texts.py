"""Texts of the starter corpus: each is of one split only."""

from itertools import chain

from auditory_sentences.corpora.clip import SPLITS
from auditory_sentences.starter import texts
from auditory_sentences.starter.randomness import generator, split_of


def test_sentences_and_longer_digit_strings_are_in_one_split_only():
    said = {}
    for split in SPLITS:
        rng = generator(0, split)
        said[split] = {texts.draw_sentence(rng, split) for _ in range(300)}
        said[split] |= {text for text in (texts.draw_digits(rng, split) for _ in range(600)) if text.count(" ") >= 2}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert len(said[a]) > 200 and not said[a] & said[b]


def test_starter_text_holds_nothing_that_is_held_out():
    lines = list(texts.starter_text(0, 3_000))
    assert lines[:50] == list(texts.starter_text(0, 50)) != list(texts.starter_text(1, 50))
    rng = generator(0, "held out")
    held_out = {texts.draw_sentence(rng, split) for split in ("dev", "test") for _ in range(2_000)}
    assert not held_out & set(lines)
    digits = [line for line in lines if set(line.split()) <= set(texts.DIGITS) and line.count(" ") >= 2]
    assert len(digits) > 100 and {split_of(line) for line in digits} == {"train"}
    assert set(texts.DIGITS) <= set(chain.from_iterable(line.split() for line in lines))
    assert any("?" in line for line in lines) and any("piano" in line for line in lines)
