"""Files that verbs write: where a result goes, decided and checked before the work begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from codec.audio.waveform import write_audio
from codec.io.errors import UserError
from codec.io.files import new_file, next_free, require_free
from codec.tokens import AudioTokens

SOUND_ENDINGS = (".wav", ".flac")


@dataclass(frozen=True)
class Result:
    """The file that a verb will write."""

    # of the file
    path: Path
    inputs: tuple[Path, ...] = ()  # what it is made of, which it never replaces
    force: bool = False  # replace a file that is there; a name that nobody chose is one that is free

    def write_sound(self, waveform: Tensor, sample_rate: int, comment: str = "") -> None:
        """Write (n,) samples at `sample_rate` Hz, with a comment in the file's metadata."""
        write_audio(self.path, waveform, sample_rate, inputs=self.inputs, force=self.force, comment=comment)

    def write_tokens(self, tokens: AudioTokens) -> None:
        """Write a token file."""
        with new_file(self.path, inputs=self.inputs, force=self.force) as temporary:
            tokens.save(temporary)


def sound_result(out: Path | None, usual: Path, inputs: Iterable[Path] = (), force: bool = False) -> Result:
    """Where a sound goes: `out`, else `usual` or the next name that is free. Raises UserError where it may not."""
    result = _result(out, usual, inputs, force)
    if result.path.suffix.lower() not in SOUND_ENDINGS:
        raise UserError(f"{result.path}: sound is written as .wav or .flac; choose a name with one of these endings")
    return result


def token_result(out: Path | None, usual: Path, inputs: Iterable[Path] = (), force: bool = False) -> Result:
    """The same for a token file."""
    result = _result(out, usual, inputs, force)
    if result.path.suffix.lower() in SOUND_ENDINGS:
        raise UserError(f"{result.path}: tokens are no sound file; choose a name that ends in .safetensors")
    return result


def _result(out: Path | None, usual: Path, inputs: Iterable[Path], force: bool) -> Result:
    if out is not None and out.name in ("", "-"):
        raise UserError(f"{out}: is no name of a file; give one with --out")
    path = out or (usual if force else next_free(usual))
    result = Result(path, tuple(inputs), force)
    require_free(path, inputs=result.inputs, force=force)
    return result
