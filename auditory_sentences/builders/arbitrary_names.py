"""Arbitrary names of classes: words of the data that name none of them, so that examples alone say what they mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from auditory_sentences.rng import stable_hash
from lm.words import normalise_words

if TYPE_CHECKING:
    from auditory_sentences.corpora.clip import Clip

FEW_WORDS, MOST_WORDS = 64, 256
HELD_OUT = 4  # one word in so many is never trained on
_SHORTEST, _RAREST = 3, 3  # letters, and clips
_COMMON = (
    "apple", "bridge", "candle", "desert", "forest", "garden", "hammer", "island", "jacket", "kettle", "ladder",
    "mirror", "needle", "orange", "pencil", "ribbon", "silver", "tunnel", "valley", "window", "yellow", "zebra",
)  # fmt: skip


def is_held_out(word: str) -> bool:
    """Whether no training episode ever uses the word as a name."""
    return stable_hash("arbitrary name", word) % HELD_OUT == 0


def name_words(clips: Iterable[Clip], label_values: Collection[str]) -> tuple[str, ...]:
    """Words that may stand for a class (symbol tuning, arXiv 2305.08298): of texts and captions, the commonest first.

    Words that the data hold are few tokens each, however a tokenizer was made: what is to be learned is to take them
    from the examples, not to spell. Where the data hold few words, some common ones follow.

    Args:
        clips: Of all splits, so that training and evaluation know the same words.
        label_values: Of all labels; none of their words is among the names.
    """
    taken = {word for value in label_values for word in normalise_words(value).split()}
    counts = Counter(word for clip in clips for word in set(normalise_words(clip.text or clip.caption).split()))
    found = sorted(
        (-count, word)
        for word, count in counts.items()
        if count >= _RAREST and len(word) >= _SHORTEST and word not in taken
    )
    words = [word for _, word in found[:MOST_WORDS]]
    if len(words) < FEW_WORDS:
        words += [word for word in _COMMON if word not in taken and word not in words]
    return tuple(words)
