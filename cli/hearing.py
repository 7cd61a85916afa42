"""What verbs and the session do with a recording before the model hears it."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

from codec.audio.waveform import audio_length, iterate_audio
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE, AudioTokens
from uniaudio.model import UniAudio

SILENCE = -70.0  # dB below full scale: the loudest sample of what counts as silence; a bit of 16 is at -90
SHORT = 0.1  # seconds: less is no word and no note


def is_silent(file: Path) -> bool:
    """Whether nothing in a sound file is louder than SILENCE; errors as `codec.audio.iterate_audio`."""
    return all(float(block.abs().max()) < 10 ** (SILENCE / 20) for block in iterate_audio(file))


def hear(model: UniAudio, file: Path) -> AudioTokens:
    """The tokens of a sound file; warns where it is too short to mean anything.

    Raises UserError where it cannot be read, or is longer than the model's context, before it is read whole.
    """
    seconds = audio_length(file) / SAMPLE_RATE
    rows = model.layout.rows_in(seconds)
    if rows > model.context:
        longest = math.floor(model.context * seconds / rows)
        raise UserError(
            f"{file}: lasts {seconds:.0f} s, but the model hears at most {longest} s at once; cut it into shorter files"
        )
    if seconds < SHORT:
        warnings.warn(f"{file}: lasts {seconds:.3f} s only; what is said about it may mean nothing", stacklevel=2)
    return model.tokens_of(file)
