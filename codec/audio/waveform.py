"""Sound files: any rate, any number of channels, any length in; 24 kHz mono out, and back to 16-bit files."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from math import ceil, gcd
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torchaudio.functional import resample

from codec.audio.files import Sound, open_sounds
from codec.io.errors import UserError
from codec.io.files import new_file
from codec.tokens import SAMPLE_RATE

# A Kaiser-windowed sinc of 64 zero crossings: 96 dB of rejection, flat to 0.95 of the band. Fixed, because tokens
# follow from the samples.
_ZERO_CROSSINGS, _ROLLOFF = 64, 0.9475937167399596
_FILTER = {
    "lowpass_filter_width": _ZERO_CROSSINGS,
    "rolloff": _ROLLOFF,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_INTEGERS = {torch.int16: (0, 2**15), torch.int32: (0, 2**31), torch.uint8: (2**7, 2**7)}  # their 0 and full scale
_LOUDEST = 16.0  # 24 dB above full scale: floats beyond it were integers


def load_audio(path: str | Path, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """The whole file as mono at `sample_rate` Hz, (n,) float32, n = ceil(frames x sample_rate / rate);
    channels are averaged.

    Raises:
        UserError: The file is missing, a folder, not readable, empty, not audio, cut short, or holds no sample or a NaN
            or infinity.
    """
    return torch.cat(list(iterate_audio(path, sample_rate=sample_rate)))


def iterate_audio(path: str | Path, block_seconds: float = 60.0, sample_rate: int = SAMPLE_RATE) -> Iterator[Tensor]:
    """The file as consecutive blocks of at most `block_seconds`, (n,) float32 each, in memory one at a time.

    The blocks joined are the file resampled as a whole. Errors as in `load_audio`; a fault in a later block is raised
    when that block is reached.
    """
    with open_sounds(path) as sounds:
        for sound in sounds:
            yield from _resampled(sound, sample_rate, block_seconds)


def audio_length(path: str | Path, sample_rate: int = SAMPLE_RATE) -> int:
    """Samples that `load_audio` gives, without decoding them. Errors as far as headers show them."""
    with open_sounds(path) as sounds:
        return sum(-(-sound.frames * sample_rate // _usable_rate(sound.rate, sample_rate)) for sound in sounds)


def at_rate(waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
    """A waveform (n,) at `rate` Hz as (ceil(n x sample_rate / rate),) at `sample_rate` Hz, as `load_audio` makes it."""
    if rate == sample_rate or not len(waveform):
        return waveform
    source = _usable_rate(rate, sample_rate)
    period = source // gcd(source, sample_rate)
    # a period of silence behind the end, as in `_resampled`
    whole = resample(torch.nn.functional.pad(waveform, (0, period)), source, sample_rate, **_FILTER)
    return whole[: ceil(len(waveform) * sample_rate / source)]


def as_waveform(samples: Tensor | np.ndarray) -> Tensor:
    """Samples from another program as a waveform (n,) float32, which lies in [-1, 1] or little beyond.

    Integers are scaled as in a WAV file: int16 by 2^15, int32 by 2^31, uint8 from 128 by 2^7.

    Raises:
        ValueError: For another type or shape.
        UserError: Samples are not finite or were never scaled.
    """
    given = samples if isinstance(samples, Tensor) else _as_tensor(samples)
    if given.ndim != 1:
        raise ValueError(f"a waveform must be mono, (n,), not of shape {tuple(given.shape)}")
    if given.dtype in _INTEGERS:
        zero, full = _INTEGERS[given.dtype]
        return ((given.double() - zero) / full).float()
    if not given.is_floating_point():
        raise ValueError(f"a waveform must be of floats, int16, int32 or uint8, not {given.dtype}")
    wave = given.float()
    if not torch.isfinite(wave).all():
        raise UserError("a waveform holds NaN or infinite samples; repair the recording")
    if wave.numel() and (loudest := float(wave.abs().max())) > _LOUDEST:
        raise UserError(
            f"a waveform of floats must lie in [-1, 1], but one reaches {loudest:.6g}; "
            "give integers as such, or divide those of 16 bits by 32768"
        )
    return wave


def _as_tensor(samples: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.array(samples, dtype=samples.dtype.newbyteorder("=")))
    except TypeError as error:
        raise ValueError(f"a waveform must be of floats, int16, int32 or uint8, not {samples.dtype}") from error


def write_audio(
    path: str | Path,
    waveform: Tensor | np.ndarray,
    sample_rate: int = SAMPLE_RATE,
    *,
    force: bool = False,
    inputs: Iterable[str | Path] = (),
    comment: str = "",
) -> float:
    """Write (n,) float samples at `sample_rate` Hz as a 16-bit .wav or .flac file, all of it or nothing.

    The gain is 1 unless a sample is beyond [-1, 1]: then the whole clip is made quieter, with a warning, and no sample
    is clipped.

    Args:
        force: Replace a file that is there.
        inputs: Files that are never replaced (`codec.io.files.new_file`).
        comment: What the file's metadata say of it.

    Returns:
        The gain used.

    Raises:
        UserError: For another ending, a place that can't be written to, no sample at all, NaN or infinity.
    """
    path = Path(path)
    samples = torch.as_tensor(waveform).detach().cpu().to(torch.float64).numpy()
    if samples.ndim != 1:
        raise ValueError(f"a waveform to write must be mono, (n,), not of shape {samples.shape}")
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: sound is written as .wav or .flac; choose a name with one of these endings")
    if samples.size == 0:
        raise UserError(f"{path}: there is no sample to write; nothing was written")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: the waveform to write holds NaN or infinity; nothing was written")
    gain = 1 / max(1.0, float(np.abs(samples).max()))
    whole = _sixteen_bits(samples * gain)
    file = io.BytesIO()  # not the file itself: libsndfile would hide what the system says of a full disk
    form = _FORMATS[path.suffix.lower()]
    with soundfile.SoundFile(file, "w", sample_rate, channels=1, subtype="PCM_16", format=form) as sound:
        if comment:
            sound.comment = comment
        sound.write(whole)
    with new_file(path, force=force, inputs=inputs) as temporary:
        temporary.write_bytes(file.getbuffer())
    if gain < 1:
        warnings.warn(f"{path}: made {-20 * np.log10(gain):.1f} dB quieter, or it would have clipped", stacklevel=2)
    return gain


def wav_pieces(waveforms: Iterable[Tensor], sample_rate: int = SAMPLE_RATE, comment: str = "") -> Iterator[bytes]:
    """A 16-bit WAV file of unknown length, for a pipe: one piece of bytes for each waveform (n,) float.

    The first piece begins with the header, which holds the comment. Samples beyond [-1, 1] are clipped: what has been
    sent cannot be made quieter any more.
    """
    unknown = 0xFFFFFFFF  # the highest number, as programs that write to a pipe have it
    header = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, sample_rate,
                         2 * sample_rate, 2, 16)  # fmt: skip
    if comment:
        text = comment.encode() + b"\0"
        text += b"\0" * (len(text) % 2)
        header += struct.pack("<4sI4s4sI", b"LIST", len(text) + 12, b"INFO", b"ICMT", len(text)) + text
    header += struct.pack("<4sI", b"data", unknown)
    for waveform in waveforms:
        yield header + _sixteen_bits(waveform.detach().cpu().double().numpy()).astype("<i2").tobytes()
        header = b""


def _sixteen_bits(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)


def _resampled(sound: Sound, sample_rate: int, block_seconds: float) -> Iterator[Tensor]:
    """The sound at `sample_rate` Hz in blocks, (n,) float32 each."""
    source = _usable_rate(sound.rate, sample_rate)
    ratio = gcd(source, sample_rate)
    period, made = source // ratio, sample_rate // ratio  # `period` samples in give `made` samples out
    step = max(1, round(block_seconds * source / period)) * period
    reach = _reach(source, sample_rate, period)  # samples on either side that a block's filter looks at
    held = np.zeros(0, np.float32)  # read and not yet past: at most `reach` samples before `start`, then the block
    start = before = done = 0  # start: first sample of the block; before: samples of `held` that precede it
    while start < sound.frames:
        wanted = min(sound.frames, start + step + reach) - done
        held = np.concatenate([held, sound.read(wanted)])
        done += wanted
        size = min(step, sound.frames - start)
        if source == sample_rate:
            yield torch.from_numpy(held[before : before + size].copy())
        else:
            # a period of silence behind the end: torchaudio rounds its own length in float32, down at times
            block = resample(torch.from_numpy(np.pad(held, (0, period))), source, sample_rate, **_FILTER)
            first = before // period * made
            yield block[first : first + ceil(size * made / period)].clone()
        start += size
        keep = min(reach, start)  # both are whole periods wherever another block follows
        held = held[before + size - keep :]
        before = keep


def _usable_rate(rate: int, sample_rate: int) -> int:
    """The rate to resample from: the file's, rounded where the filter for an odd one would fill the memory.

    The polyphase filter has rate x sample_rate / gcd² entries. Every usual rate divides well; one such as 11127 Hz is
    taken as 11130 Hz, which is at most one cent of pitch.
    """
    step = 10 if rate < 100_000 else 100
    return rate if gcd(rate, sample_rate) >= step else round(rate / step) * step


@cache
def _reach(source: int, sample_rate: int, period: int) -> int:
    """Samples at the file's rate that a resampled sample depends on, on either side, in whole periods."""
    if source == sample_rate:
        return 0
    lowest = min(source, sample_rate) * _ROLLOFF
    return ceil((_ZERO_CROSSINGS * source / lowest + 1) / period + 1) * period
