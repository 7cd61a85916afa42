"""How many rows segments take at most, known before they are built, and how to cut audio to fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from auditory_sentences.sentence import Segment
from codec.streams import StreamSpec, common_unit
from codec.tokens import AudioTokens
from lm.vocabulary import EDGES, TAGGED_ROLES, VocabularyLayout


def row_limit(segments: Iterable[Segment]) -> int:
    """Rows that the segments take at most, whatever the text tokenizer.

    Exact for audio; for text one row per byte, with BOS, EOS, tags and the space that sentencepiece puts in front. What
    breaks this bound all the same (text that grows when it is normalised) is skipped, and counted, by packing.
    """
    limit = 0
    for segment in segments:
        content = segment.content
        if isinstance(content, str):
            limit += len(content.encode()) + 3
            limit += 2 if segment.role == "prompt" or segment.role in TAGGED_ROLES else 0
        else:
            limit += VocabularyLayout.row_count(content, segment.role)
    return limit


class Units:
    """How the audio of a tokenizer is cut: at multiples of the shortest time that is whole frames of every stream.

    That is 0.4 s, 2 descriptive and 5 structural frames, for ReasoningCodec.

    Args:
        streams: Of the tokenizer.
        sample_rate: Of the tokenizer, in Hz.
    """

    def __init__(self, streams: Sequence[StreamSpec], sample_rate: int) -> None:
        unit = common_unit(tuple(spec.rate for spec in streams))
        self.seconds = float(unit)
        self._samples = unit * sample_rate
        self._frames = {spec.name: round(self.seconds * spec.rate) for spec in streams}

    def at_least(self, seconds: float) -> int:
        """Units that fill so many seconds."""
        return math.ceil(round(seconds / self.seconds, 6))

    def in_clip(self, tokens: AudioTokens) -> int:
        """Whole units that a clip holds."""
        return min(tokens[name].shape[1] // frames for name, frames in self._frames.items())

    def in_rows(self, rows: int) -> int:
        """Units that fit into so many rows as one "audio" segment; 0 where none does."""
        return max(0, (rows - EDGES * len(self._frames)) // sum(self._frames.values()))

    def crop(self, tokens: AudioTokens, start: int, units: int) -> AudioTokens:
        """The tokens of `units` units from unit `start` on.

        One sample shorter than that time, which makes it exactly so many whole units of frames: crops that follow each
        other share no frame and leave none out.

        Args:
            tokens: A clip of the tokenizer.
            start: Unit, counted from 0.
            units: How many, at least one.

        Raises:
            ValueError: They lie outside the clip.
        """
        if units < 1 or start < 0 or start + units > self.in_clip(tokens):
            raise ValueError(
                f"units {start} to {start + units} lie outside a clip of {self.in_clip(tokens)} units of "
                f"{self.seconds:g} s"
            )
        end = start + units
        cut = {
            name: tokens[name][:, start * frames : end * frames].contiguous() for name, frames in self._frames.items()
        }
        return AudioTokens(cut, math.ceil(units * self._samples) - 1, tokens.fingerprint)
