"""What a model answers with: a segment, a sound, or a sound while it is being made."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from auditory_sentences.sentence import Segment
from codec.audio.waveform import write_audio
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from lm.generation.batch import Reason


@dataclass(frozen=True)
class Completion:
    """What the model generated."""

    segment: Segment | None  # of the role asked for; None where audio ended before it had a frame of every stream
    reason: Reason  # "end" where the model ended by itself, "max_rows" or "context" where it was cut off

    @property
    def tokens(self) -> AudioTokens:
        """Its audio. Raises UserError where it has none."""
        if self.segment is None:
            raise UserError(f"the model made no sound ({self.reason}); try another seed, or a longer sound")
        return self.segment.tokens

    @property
    def line(self) -> str:
        """Its text on one line; "" where there is none."""
        return "" if self.segment is None else " ".join(self.segment.text.split())


@dataclass(frozen=True)
class Sound:
    """Generated audio."""

    waveform: Tensor  # (n,) float32, on the CPU
    sample_rate: int  # of the waveform, in Hz
    tokens: AudioTokens  # what it was decoded from
    reason: Reason  # "end" where the model ended by itself, "max_rows" or "context" where it was cut off
    provenance: str = ""  # that it is synthetic, and what made it: written into the file

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write a WAV or FLAC file. Raises UserError where a file is there already, unless `force` is set."""
        write_audio(path, self.waveform, self.sample_rate, force=force, comment=self.provenance)

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / self.sample_rate


class SoundStream:
    """Sound while it is being made: iterate once for its pieces, (n,) float32 at the codec's rate on the CPU, n >= 1.

    completion: what `UniAudio.complete` would have given; None until the last piece has come
    """

    completion: Completion | None = None

    def __init__(self, pieces: Generator[Tensor, None, Completion]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[Tensor]:
        self.completion = yield from self._pieces
