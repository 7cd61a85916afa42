"""Sound files: any rate, any number of channels, any length in; 24 kHz mono out, and back to 16-bit files."""

from __future__ import annotations

import os
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

from codec.errors import UserError
from codec.tokens import SAMPLE_RATE

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 400_000  # Hz; a header with another rate is damaged
# A Kaiser-windowed sinc of 64 zero crossings: 96 dB of rejection, flat to 0.95 of the band. Fixed, because tokens
# follow from the samples.
_FILTER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def load_audio(path: str | Path) -> Tensor:
    """The whole file as 24 kHz mono: (n,) float32, channels averaged, n = ceil(frames x 24000 / rate).

    Raises UserError where the file is missing, a folder, not readable, empty, not audio, cut short, or holds no sample
    or a NaN or infinity.
    """
    return torch.cat(list(iterate_audio(path)))


def iterate_audio(path: str | Path, block_seconds: float = 60.0) -> Iterator[Tensor]:
    """The file as consecutive blocks of at most `block_seconds`, (n,) float32 each, in memory one at a time.

    The blocks joined are the file resampled as a whole. Errors as in `load_audio`; a fault in a later block is raised
    when that block is reached.
    """
    with _open(path) as file:
        source = _usable_rate(file.samplerate)
        ratio = gcd(source, SAMPLE_RATE)
        period, made = source // ratio, SAMPLE_RATE // ratio  # `period` samples in give `made` samples out
        step = max(1, round(block_seconds * source / period)) * period
        reach = _reach(source, period)  # samples on either side that a block's filter looks at
        held = np.zeros(0, np.float32)  # read and not yet past: at most `reach` samples before `start`, then the block
        start = before = done = 0  # start: first sample of the block; before: samples of `held` that precede it
        while start < file.frames:
            wanted = min(file.frames, start + step + reach) - done
            held = np.concatenate([held, _read(file, wanted, path)])
            done += wanted
            size = min(step, file.frames - start)
            if source == SAMPLE_RATE:
                yield torch.from_numpy(held[before : before + size].copy())
            else:
                # a period of silence behind the end: torchaudio rounds its own length in float32, down at times
                block = resample(torch.from_numpy(np.pad(held, (0, period))), source, SAMPLE_RATE, **_FILTER)
                first = before // period * made
                yield block[first : first + ceil(size * made / period)].clone()
            start += size
            keep = min(reach, start)  # both are whole periods wherever another block follows
            held = held[before + size - keep :]
            before = keep


def audio_length(path: str | Path) -> int:
    """Samples that `load_audio` gives, from the file's header alone. Errors as far as the header shows them."""
    with _open(path) as file:
        source = _usable_rate(file.samplerate)
        return ceil(file.frames * SAMPLE_RATE / source)


def write_audio(path: str | Path, waveform: Tensor | np.ndarray) -> float:
    """Write (n,) float samples at 24 kHz as a 16-bit .wav or .flac file, all of it or nothing. Returns the gain used.

    The gain is 1 unless a sample is beyond [-1, 1]: then the whole clip is made quieter, with a warning, and no sample
    is clipped. Raises UserError for another ending, a missing folder, no sample at all, NaN or infinity.
    """
    path = Path(path)
    samples = torch.as_tensor(waveform).detach().cpu().to(torch.float64).numpy()
    if samples.ndim != 1:
        raise ValueError(f"a waveform to write must be mono, (n,), not of shape {samples.shape}")
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: sound is written as .wav or .flac; choose a name with one of these endings")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file to write")
    if samples.size == 0:
        raise UserError(f"{path}: there is no sample to write; nothing was written")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: the waveform to write holds NaN or infinity; nothing was written")
    gain = 1 / max(1.0, float(np.abs(samples).max()))
    if gain < 1:
        warnings.warn(f"{path}: made {-20 * np.log10(gain):.1f} dB quieter, or it would have clipped", stacklevel=2)
    whole = _sixteen_bits(samples * gain)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            soundfile.write(file, whole, SAMPLE_RATE, subtype="PCM_16", format=_FORMATS[path.suffix.lower()])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error.strerror}); choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    return gain


def wav_pieces(waveforms: Iterable[Tensor]) -> Iterator[bytes]:
    """A 16-bit WAV file of unknown length, for a pipe: one piece of bytes for each waveform (n,) float at 24 kHz.

    The first piece begins with the header. Samples beyond [-1, 1] are clipped: what has been sent cannot be made
    quieter any more.
    """
    unknown = 0xFFFFFFFF  # the highest number, as programs that write to a pipe have it
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", unknown, b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE,
                         2 * SAMPLE_RATE, 2, 16, b"data", unknown)  # fmt: skip
    for waveform in waveforms:
        yield header + _sixteen_bits(waveform.detach().cpu().double().numpy()).astype("<i2").tobytes()
        header = b""


def _sixteen_bits(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)


def _open(path: str | Path) -> soundfile.SoundFile:
    """The file, open for reading, with every fault that can be seen before its samples are read."""
    path = Path(path)
    try:
        with path.open("rb") as raw:
            size = raw.seek(0, os.SEEK_END)
            cut = size > 0 and _is_cut_short(raw, size)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; give a sound file") from error
    except PermissionError as error:
        raise UserError(f"{path}: may not be read; change its permissions") from error
    except OSError as error:
        raise UserError(f"{path}: could not be opened ({error.strerror}); check the path") from error
    if size == 0:
        raise UserError(f"{path}: is empty (0 bytes); record or copy it again")
    if cut:
        raise UserError(f"{path}: is cut short, its header promises more sound than it holds; copy it again")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a raw format, which needs a rate from outside
        raise UserError(f"{path}: is not a sound file that can be read; convert it to WAV, FLAC, OGG or MP3") from error
    fault = None
    if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
        fault = f"has a sample rate of {file.samplerate} Hz; resample it to 24000 Hz"
    elif file.frames <= 0:
        fault = "holds no sample; record or copy it again"
    elif file.frames > 2**48:
        fault = "does not say how long it is; copy it again"
    if fault:
        file.close()
        raise UserError(f"{path}: {fault}")
    return file


def _read(file: soundfile.SoundFile, frames: int, path: str | Path) -> np.ndarray:
    """The next `frames` frames, averaged over channels: (frames,) float32."""
    try:
        samples = file.read(frames, dtype="float32", always_2d=True)  # (frames, channels)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: is damaged or cut short ({error}); copy it again") from error
    if len(samples) < frames:
        raise UserError(f"{path}: is cut short, its header promises more sound than it holds; copy it again")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: holds NaN or infinite samples; export it again")
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def _is_cut_short(raw, size: int) -> bool:
    """Whether a WAV file ends before its data does, or an OGG file before its last page: libsndfile tells neither."""
    raw.seek(0)
    head = raw.read(12)
    if head[:4] == b"OggS":
        raw.seek(max(0, size - 65_307))  # a page has at most that many bytes
        tail = raw.read()
        page = tail.rfind(b"OggS")
        last_of_stream = 4
        return page < 0 or page + 6 > len(tail) or not tail[page + 5] & last_of_stream
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return False
    at = 12
    while at + 8 <= size:
        raw.seek(at)
        name, length = struct.unpack("<4sI", raw.read(8))
        if name == b"data":
            # A program that writes to a pipe cannot know the length and leaves the highest number, or 0.
            return length < 0x7FFFFFFF and at + 8 + length > size
        at += 8 + length + length % 2
    return True


def _usable_rate(rate: int) -> int:
    """The rate to resample from: the file's, rounded where the filter for an odd one would fill the memory.

    The polyphase filter has rate x 24000 / gcd² entries. Every usual rate divides well; one such as 11127 Hz is taken
    as 11130 Hz, which is at most one cent of pitch.
    """
    step = 10 if rate < 100_000 else 100
    return rate if gcd(rate, SAMPLE_RATE) >= step else round(rate / step) * step


@cache
def _reach(source: int, period: int) -> int:
    """Samples at the file's rate that a resampled sample depends on, on either side, in whole periods."""
    if source == SAMPLE_RATE:
        return 0
    lowest = min(source, SAMPLE_RATE) * _FILTER["rolloff"]
    return ceil((_FILTER["lowpass_filter_width"] * source / lowest + 1) / period + 1) * period
