"""People's text for a model of few words: written as the texts were that it learned from.

A tokenizer has ids for any text, spelling out in bytes what it has no piece for; but a model that never met a digit
in training has no idea what the bytes of one mean, and says something. So what has no piece is rewritten as far as that
loses nothing (case, digits, accents, typographic marks), and what is left over is dropped and named. A tokenizer that
knows everything, as LLaMA's does, gets the text as it is.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

from lm.text_tokenizer import TextTokenizer
from lm.words import DIGITS

# What the text is to the model: words that are said or sung, the description of a sound, or anything else.
Use = Literal["words", "description", "text"]

_ORDINALS = ("zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_SPOKEN = {"%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at"}
_MARKS = ".,?!"  # of sentences: known as a class, or not at all
_SILENT = frozenset("!\"'(),-.:;?_…·¡¿«»‹›")
_PLAIN = str.maketrans("‘’‛‚“”„‐‑–—−", "''',\"\"\"-----")
_BARE_FRACTION = re.compile(r"(?<![0-9A-Za-z.])\.(?=[0-9])", re.ASCII)
_NUMBER = re.compile(r"(?<![0-9A-Za-z])(-?)([0-9][0-9,]*)(?:\.([0-9]+))?(st|nd|rd|th)?(?![A-Za-z])|[0-9]+", re.ASCII)


class Normalised(NamedTuple):
    """A text for the model."""

    # what the model can say
    text: str
    # distinct characters that it has no way to say, in order of appearance
    dropped: str = ""


def normalise(text: str, tokenizer: TextTokenizer, use: Use = "text") -> Normalised:
    """The text in the vocabulary of the model whose tokenizer this is; nothing may be left.

    Digits are said one by one, as in "three seven one", for nothing tells how large a number the model can say.
    A class of characters (capitals, digits, the marks .,?!) counts as known only where the tokenizer has all of it:
    the starter has capitals for keys of music, yet words that are said have none.

    Args:
        text: Any text.
        tokenizer: Of the model.
        use: What the text is to the model.
    """
    if tokenizer.knows_everything:
        readable = text.encode("utf-8", "ignore").decode()  # halves of surrogate pairs: bytes that are no text
        return Normalised(readable, _distinct(c for c in text if "\ud800" <= c <= "\udfff"))

    def knows(characters: str) -> bool:
        return all(map(tokenizer.knows, characters))

    text = " ".join(unicodedata.normalize("NFKC", text.translate(_PLAIN)).split())
    if not knows(string.digits):
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
        text = _NUMBER.sub(_said, _BARE_FRACTION.sub("0.", text))
    if not knows(string.ascii_uppercase):
        text = _small(text, tokenizer, use)
    elif not knows(string.ascii_lowercase):  # transcripts in capitals, as LibriSpeech has them
        text = text.upper()
    unmarked = use == "words" and not knows(_MARKS)
    kept, dropped = [], []
    for character in text:
        if character == " " or (tokenizer.knows(character) and not (unmarked and character in _SILENT)):
            kept.append(character)
        elif character in _SILENT:
            kept.append("" if character == "'" else " ")
        elif character in _SPOKEN:
            kept.append(f" {_SPOKEN[character]} ")
        elif plain := [c for c in unicodedata.normalize("NFKD", character) if tokenizer.knows(c)]:
            kept += plain
        elif unicodedata.category(character) not in ("Cf", "Mn", "Me"):  # these show nothing by themselves
            kept.append(" ")
            dropped.append(character)
    return Normalised(" ".join("".join(kept).split()), _distinct(dropped))


def _said(number: re.Match[str]) -> str:
    """A number's digits one by one: -3.5 is minus three point five, 2nd is second."""
    sign, whole, fraction, ordinal = number.groups()
    digits = [DIGITS[int(d)] for d in (whole or number[0]) if d != ","]
    if ordinal and not fraction:
        digits[-1] = _ORDINALS[int(whole.rstrip(",")[-1])]
    if fraction:
        digits += ["point", *(DIGITS[int(d)] for d in fraction)]
    minus = ["minus"] if sign else []
    trailing = "," if whole and whole.endswith(",") else ""
    after = f" {ordinal} " if ordinal and fraction else " " if whole is None else ""
    before = " " if whole is None else ""
    return f"{before}{' '.join(minus + digits)}{trailing}{after}"


def _small(text: str, tokenizer: TextTokenizer, use: Use) -> str:
    """Small letters where the model has learned small ones.

    All of the words that are said. In a description the keys of music keep theirs, in other texts every word that is
    not all capitals, but for letters that have no piece.
    """
    if use == "words":
        return text.lower()
    words = text.split(" ")
    for place, word in enumerate(words):
        several = sum(map(str.isalpha, word)) > 1
        lower = (several or place == 0) if use == "description" else (several and word.isupper())
        words[place] = word.lower() if lower else "".join(c if tokenizer.knows(c) else c.lower() for c in word)
    return " ".join(words)


def _distinct(characters: Iterable[str]) -> str:
    return "".join(dict.fromkeys(characters))
