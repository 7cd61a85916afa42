"""What the starter voices say, how their style is described, and plain text about all of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from auditory_sentences.starter import music, sounds, voices
from auditory_sentences.starter.randomness import choose, generator, split_of
from lm.words import DIGITS

Generator = np.random.Generator

_SLOTS: dict[str, tuple[str, ...]] = {
    "adjective": (
        "red", "blue", "green", "yellow", "white", "black", "old", "young", "small", "tall", "happy", "quiet",
    ),
    "animal": ("bird", "cat", "dog", "horse", "fish", "fox", "bear", "mouse"),
    "does": ("sings", "sleeps", "runs", "swims", "jumps", "waits", "dances", "hides"),
    "place": (
        "by the river", "near the house", "under the tree", "on the table", "in the garden", "behind the school",
    ),
    "command": ("open", "close", "paint", "find", "clean", "watch"),
    "object": ("door", "window", "box", "book", "gate", "bottle"),
    "person": ("my mother", "my brother", "the teacher", "the doctor", "our neighbour", "the farmer"),
    "verb": ("buys", "likes", "wants", "sells", "brings"),
    "thing": ("bread", "apples", "milk", "coffee", "paper", "flowers"),
    "time": ("today", "tomorrow", "every morning", "right now"),
}  # fmt: skip
_SENTENCES = (
    "the {adjective} {animal} {does}",
    "the {adjective} {animal} {does} {place}",
    "{command} the {adjective} {object}",
    "{command} the {object} {place}",
    "{person} {verb} {thing} {time}",
    "{person} {verb} {thing} {place}",
)
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
OBJECTS, PEOPLE, VERBS, THINGS = (_SLOTS[slot] for slot in ("object", "person", "verb", "thing"))
WORDS = tuple(sorted({w for form in (*_SENTENCES, *sum(_SLOTS.values(), ())) for w in form.split() if "{" not in w}))

_STYLES = (
    "a {pitch} {gender} voice speaking {speed} with a {accent} accent",
    "a {gender} speaker with a {pitch} voice talks {speed}",
    "a {gender} voice with a {accent} accent",
    "a {accent} {person} speaking {speed}",
    "a {pitch} pitched {gender} voice speaking {speed}",
)
_SPEEDS = {"slow": "slowly", "medium": "at a normal pace", "fast": "fast"}


def belongs_to(text: str, split: str) -> bool:
    """Whether a text may be said in a split: one or two digits in all of them, anything else in its own."""
    words = text.split()
    return (len(words) < 3 and all(word in DIGITS for word in words)) or split_of(text) == split


def draw_digits(rng: Generator, split: str) -> str:
    """One to five digits as words. Strings of three or more belong to one split; shorter ones are in all of them."""
    while True:
        length = int(rng.choice([1, 2, 3, 4, 5], p=[0.2, 0.15, 0.25, 0.2, 0.2]))
        text = " ".join(choose(rng, DIGITS) for _ in range(length))
        if belongs_to(text, split):
            return text


def draw_sentence(rng: Generator, split: str) -> str:
    """A simple sentence of about 80 words' vocabulary that belongs to the split."""
    while True:
        text = choose(rng, _SENTENCES).format(**{slot: choose(rng, options) for slot, options in _SLOTS.items()})
        if belongs_to(text, split):
            return text


def style_caption(labels: dict[str, str], rng: Generator) -> str:
    """Words for a voice's exact labels: gender, pitch, speed, accent."""
    person = {"male": "man", "female": "woman"}[labels["gender"]]
    words = {**labels, "speed": _SPEEDS[labels["speed"]], "person": person}
    return choose(rng, _STYLES).format(**words).replace("a american", "an american")


def starter_text(seed: int, n: int) -> Iterator[str]:
    """`n` lines of plain text to train the starter text model: what is said, captions, questions with answers.

    Only sentences, digit strings of the train split occur. Line i depends on (seed, i) alone.
    """
    makers = (_said, _said, _said, _caption, _caption, _question)
    for i in range(n):
        rng = generator(seed, "text", i)
        yield choose(rng, makers)(rng)


def _said(rng: Generator) -> str:
    return draw_digits(rng, "train") if rng.random() < 0.4 else draw_sentence(rng, "train")


def _speech_labels(rng: Generator) -> dict[str, str]:
    return {
        "gender": choose(rng, ("male", "female")),
        "pitch": choose(rng, ("low", "medium", "high")),
        "speed": choose(rng, tuple(voices.SPEED_BANDS)),
        "accent": choose(rng, tuple(voices.ACCENTS.values())),
    }


def _music_labels(rng: Generator) -> dict[str, str]:
    return {
        "instrument": choose(rng, music.INSTRUMENTS),
        "key": f"{choose(rng, music.TONICS)} {choose(rng, tuple(music.MODES))}",
        "tempo": choose(rng, tuple(music.TEMPI)),
    }


def _caption(rng: Generator) -> str:
    kind = rng.integers(3)
    if kind == 0:
        return style_caption(_speech_labels(rng), rng)
    if kind == 1:
        return sounds.sound_caption(choose(rng, sounds.CLASSES), rng)
    return music.music_caption(_music_labels(rng), rng)


def _question(rng: Generator) -> str:
    """A caption, a question about it and the answer, which the caption gives."""
    kind = rng.integers(3)
    if kind == 0:
        labels = _speech_labels(rng)
        caption, ask = style_caption(labels, rng), "is the speaker male or female?"
        return f"{caption}. {ask} {labels['gender']}"
    if kind == 1:
        event = choose(rng, sounds.CLASSES)
        return f"{sounds.sound_caption(event, rng)}. what do you hear? {event}"
    labels = _music_labels(rng)
    ask, answer = choose(
        rng, (("which instrument is playing?", "instrument"), ("is the music slow, medium or fast?", "tempo"))
    )
    return f"{music.music_caption(labels, rng)}. {ask} {labels[answer]}"
