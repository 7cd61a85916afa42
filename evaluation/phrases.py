"""Which values of a label a text names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lm.words import normalise_words


def labels_in_text(text: str | None, phrases: Mapping[str, Sequence[str]]) -> set[str]:
    """The values that a text names.

    Longer phrases are looked for first and use up their words, so that "northern english" does not also name "english".

    Args:
        text: Any text; None names nothing.
        phrases: Value -> the normalised phrases (lm.words.normalise_words) that name it.
    """
    named, rest = set(), f" {normalise_words(text or '')} "
    pairs = sorted(
        ((phrase, value) for value, several in phrases.items() for phrase in several),
        key=lambda pair: (-len(pair[0]), pair[0]),
    )
    for phrase, value in pairs:
        if phrase and f" {phrase} " in rest:
            named.add(value)
            # A mark between the words keeps the two sides from forming a phrase that the text does not have.
            rest = rest.replace(f" {phrase} ", " | ")
    return named


def label_in_text(text: str | None, phrases: Mapping[str, Sequence[str]]) -> str | None:
    """The one value that a text names, as in `labels_in_text`; None where it names none or several, never a guess."""
    named = labels_in_text(text, phrases)
    return named.pop() if len(named) == 1 else None
