"""Made-up words: names that mean nothing, so that the examples of an episode alone say what they stand for."""

from __future__ import annotations

from collections.abc import Collection

from auditory_sentences.rng import KeyedRng, stable_hash

# Of five letters, with which few English words can be written; some ten thousand.
_FIRST, _VOWELS, _LAST = "bdfgkmpvz", "aiou", "dfgkmpvz"
HELD_OUT = 4  # one word in so many is never trained on


def is_held_out(word: str) -> bool:
    """Whether no training episode ever uses the word as a name."""
    return stable_hash("made-up word", word) % HELD_OUT == 0


def made_up_words(count: int, rng: KeyedRng, *, held_out: bool, without: Collection[str] = ()) -> list[str]:
    """Different words that mean nothing, such as "vodak" (symbol tuning, arXiv 2305.08298).

    Args:
        count: How many.
        rng: Draws them.
        held_out: Words that training never uses, rather than those that it does.
        without: What none of them may be.
    """
    words: list[str] = []
    while len(words) < count:
        word = "".join(map(rng.choice, (_FIRST, _VOWELS, _FIRST, _VOWELS, _LAST)))
        if is_held_out(word) == held_out and word not in words and word not in without:
            words.append(word)
    return words
