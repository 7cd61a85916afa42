"""Opus (RFC 6716) through libsndfile, which every installation has; mono at 24 kHz, variable bit rate."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile

from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE
from evaluation.codecs.base import Reconstruction, TestedCodec, to_24_khz

LEAST, MOST = 6, 256  # kb/s of one channel that libsndfile can ask for
_HEADERS = 2  # packets of an Ogg Opus stream that hold no sound (RFC 7845)


class Opus(TestedCodec):
    """Opus at a bit rate that it aims at; the bits that it took are counted."""

    def __init__(self, kbps: float) -> None:
        """Raises UserError for a bit rate that is none of libsndfile's: whole kb/s from 6 to 256."""
        if kbps != int(kbps) or not LEAST <= kbps <= MOST:
            raise UserError(f"opus@{kbps:g}: its bit rate must be a whole number of kb/s from {LEAST} to {MOST}")
        self.name, self.kbps = f"opus@{kbps:g}", int(kbps)
        self.fingerprint = f"opus {self.kbps} kb/s, libsndfile {soundfile.__libsndfile_version__}, 1"

    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        return [self._one(np.asarray(waveform, dtype=np.float32)) for waveform in waveforms]

    def _one(self, waveform: np.ndarray) -> Reconstruction:
        file = io.BytesIO()
        level = 1 - (self.kbps - LEAST) / (MOST - LEAST)  # libsndfile's scale, from the most bits to the fewest
        # The rate in whole kb/s is cut, not rounded, there: a hair above it.
        level = min(max(level - 1e-6, 0.0), 1.0)
        soundfile.write(file, waveform, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=level)
        stream = file.getvalue()
        made, rate = soundfile.read(io.BytesIO(stream), dtype="float32")  # without the encoder's delay (its pre-skip)
        bits = 8 * sum(list(packet_sizes(stream))[_HEADERS:])
        return Reconstruction(to_24_khz(made, rate, len(waveform)), bits)


def packet_sizes(stream: bytes) -> Iterator[int]:
    """Bytes of each packet of an Ogg stream (RFC 3533), in order."""
    place = packet = 0
    while stream[place : place + 4] == b"OggS":
        segments = stream[place + 26]
        table = stream[place + 27 : place + 27 + segments]
        for size in table:
            packet += size
            if size < 255:  # the packet's last segment
                yield packet
                packet = 0
        place += 27 + segments + sum(table)
