"""How many rows a segment takes, known before they are built, and how to cut audio to fit.

`to_rows` alone decides what rows there are; a test holds these counts to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from auditory_sentences.sentence import Segment
from codec.tokens import DESCRIPTIVE_RATE, SAMPLE_RATE, STRUCTURAL_RATE, AudioTokens
from lm.vocabulary import TAGGED_ROLES

UNIT_SECONDS = 0.4  # the shortest time that is a whole number of frames of both kinds: 2 descriptive, 5 structural
_UNIT_DESCRIPTIVE = round(UNIT_SECONDS * DESCRIPTIVE_RATE)
_UNIT_STRUCTURAL = round(UNIT_SECONDS * STRUCTURAL_RATE)
_UNIT_SAMPLES = round(UNIT_SECONDS * SAMPLE_RATE)
_EDGES = 2  # a BOS and an EOS frame around each token kind


def audio_row_count(tokens: AudioTokens, role: str) -> int:
    """Rows of an audio segment of that role (published model, §B.2)."""
    descriptive, structural = tokens.descriptive.shape[1], tokens.structural.shape[1]
    return {
        "audio": descriptive + structural + 2 * _EDGES,
        "descriptive": descriptive + _EDGES,
        "structural": structural + _EDGES,
        "audio_prompt": structural,  # its first and last frame are replaced, none is added
    }[role]


def row_limit(segments: Iterable[Segment]) -> int:
    """Rows that the segments take at most, whatever the text tokenizer.

    Exact for audio; for text one row per byte, with BOS, EOS, tags and the space that sentencepiece puts in front. What
    breaks this bound all the same (text that grows when it is normalised) is skipped, and counted, by packing.
    """
    limit = 0
    for segment in segments:
        if segment.is_text:
            limit += len(segment.content.encode()) + 3
            limit += 2 if segment.role == "prompt" or segment.role in TAGGED_ROLES else 0
        else:
            limit += audio_row_count(segment.content, segment.role)
    return limit


def whole_units(tokens: AudioTokens) -> int:
    """How many units of 0.4 s the clip holds."""
    return min(tokens.descriptive.shape[1] // _UNIT_DESCRIPTIVE, tokens.structural.shape[1] // _UNIT_STRUCTURAL)


def units_in(rows: int) -> int:
    """How many units of audio fit into that many rows as one "audio" segment; 0 where none does."""
    return max(0, (rows - 2 * _EDGES) // (_UNIT_DESCRIPTIVE + _UNIT_STRUCTURAL))


def crop(tokens: AudioTokens, start: int, units: int) -> AudioTokens:
    """The tokens of `units` units of 0.4 s from unit `start` on.

    One sample shorter than that time, which makes it exactly 2 descriptive and 5 structural frames a unit: crops
    that follow each other share no frame and leave none out.
    """
    if units < 1 or start < 0 or start + units > whole_units(tokens):
        raise ValueError(f"units {start} to {start + units} lie outside a clip of {whole_units(tokens)} units of 0.4 s")
    end = start + units
    return AudioTokens(
        tokens.descriptive[:, start * _UNIT_DESCRIPTIVE : end * _UNIT_DESCRIPTIVE].contiguous(),
        tokens.structural[:, start * _UNIT_STRUCTURAL : end * _UNIT_STRUCTURAL].contiguous(),
        units * _UNIT_SAMPLES - 1,
        tokens.fingerprint,
    )
