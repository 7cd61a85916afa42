"""The text normaliser that stands before every comparison of words. Another version gives other word error rates."""

from __future__ import annotations

import re
import unicodedata

NORMALISER_VERSION = "english-words 1"
_DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(), strict=True))
_SYMBOLS = {"&": " and ", "%": " percent ", "+": " plus "}


def normalise(text: str) -> str:
    """Lower-case words separated by single spaces.

    In this order: compatibility form (NFKC) and straight apostrophes; lower case; `&`, `%`, `+` as words; every digit
    as its own word ("42" becomes "four two"); apostrophes kept inside a word and dropped elsewhere; all other
    punctuation becomes a space. Accents stay. Nothing is corrected or expanded: "it's" is not "it is".
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").lower()
    for symbol, word in _SYMBOLS.items():
        text = text.replace(symbol, word)
    text = "".join(f" {_DIGITS[c]} " if c in _DIGITS else c for c in text)
    text = re.sub(r"[^\w']|_", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return " ".join(text.split())
