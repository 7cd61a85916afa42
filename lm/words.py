"""Words in plain form: what stands before every comparison of texts, and which texts are numbers.

Text for a model's vocabulary is another matter: lm/text_normaliser.py.
"""

from __future__ import annotations

import re
import unicodedata

NORMALISER_VERSION = "english-words 1"  # another version gives other word error rates
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WORD_OF = dict(zip("0123456789", DIGITS, strict=True)) | {"&": "and", "%": "percent", "+": "plus"}


def normalise_words(text: str) -> str:
    """Lower-case words separated by single spaces.

    In this order: compatibility form (NFKC) and straight apostrophes; lower case; `&`, `%`, `+` and every digit as
    words of their own ("42" becomes "four two"); apostrophes kept inside a word and dropped elsewhere; all other
    punctuation becomes a space. Accents stay. Nothing is corrected or expanded: "it's" is not "it is".

    Args:
        text: Any text.

    Returns:
        Its words; "" for a text without any.
    """
    text = unicodedata.normalize("NFKC", text).replace("’", "'").lower()
    text = "".join(f" {_WORD_OF[c]} " if c in _WORD_OF else c for c in text)
    text = re.sub(r"[^\w']|_", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return " ".join(text.split())


def as_number(text: str | None) -> float | None:
    """The number that a label's value is; None for the name of a class, or for no value."""
    try:
        return float(text or "")
    except ValueError:
        return None
