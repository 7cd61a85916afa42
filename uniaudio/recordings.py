"""What is checked of a recording before it becomes a request: that it is not silent, and fits the model's context."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from codec.audio.waveform import audio_length, iterate_audio
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE
from lm.vocabulary import VocabularyLayout

SILENCE = -70.0  # dB below full scale: the loudest sample of what counts as silence; a bit of 16 is at -90
SHORT = 0.1  # seconds: less is no word and no note


def is_silent(file: str | Path) -> bool:
    """Whether nothing in a sound file is louder than SILENCE; errors as `codec.audio.iterate_audio`."""
    return all(float(block.abs().max()) < 10 ** (SILENCE / 20) for block in iterate_audio(file))


def require_length(file: str | Path, layout: VocabularyLayout, context: int) -> None:
    """Check a sound file's length before it is read whole; warns where it is too short to mean anything.

    Args:
        file: Sound file.
        layout: Vocabulary of the model, which says how many rows audio takes.
        context: Rows of the model's context.

    Raises:
        UserError: The file cannot be read, or is longer than the context.
    """
    seconds = audio_length(file) / SAMPLE_RATE
    rows = layout.rows_in(seconds)
    if rows > context:
        longest = math.floor(context * seconds / rows)
        raise UserError(
            f"{file}: lasts {seconds:.0f} s, but the model takes at most {longest} s at once; cut it into shorter files"
        )
    if seconds < SHORT:
        warnings.warn(f"{file}: lasts {seconds:.3f} s only; an answer about it may mean nothing", stacklevel=3)
