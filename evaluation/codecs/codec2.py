"""Codec2, a vocoder for speech at 0.7 to 3.2 kb/s, through the package pycodec2; mono at 8 kHz.

Its library draws the phases of noise from one generator of the process, without a seed: they depend on the clips
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from codec.io.errors import UserError
from evaluation.codecs.base import Reconstruction, TestedCodec, from_24_khz, to_24_khz

RATE = 8_000
# kb/s -> samples at 8 kHz by which the mode is late: where the envelopes of speech and its reconstruction fit best
MODES = {0.7: 240, 1.2: 160, 1.3: 160, 1.4: 160, 1.6: 160, 2.4: 160, 3.2: 160}


class Codec2(TestedCodec):
    """Codec2 in one of its modes."""

    def __init__(self, kbps: float) -> None:
        """Raises UserError for a bit rate that is no mode, or where the package is not installed."""
        if kbps not in MODES:
            raise UserError(f"codec2@{kbps:g}: its modes are {', '.join(f'codec2@{mode:g}' for mode in MODES)}")
        try:
            import pycodec2
        except ImportError as error:
            raise UserError("Codec2 needs a package that is not installed: pip install 'uniaudio[rivals]'") from error
        self.name, self.kbps, self._library = f"codec2@{kbps:g}", kbps, pycodec2
        self.bits_per_second = 1000 * kbps
        self.fingerprint = f"codec2 {kbps:g} kb/s, pycodec2 {version('pycodec2')}, 1"

    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        return [self._one(waveform) for waveform in waveforms]

    def _one(self, waveform: np.ndarray) -> Reconstruction:
        coder = self._library.Codec2(round(1000 * self.kbps))  # a fresh one: the state of a clip stays with it
        size, delay = coder.samples_per_frame(), MODES[self.kbps]
        speech = np.clip(from_24_khz(waveform, RATE), -1, 1) * 32767
        speech = np.pad(speech, (0, delay + (-len(speech) - delay) % size)).round().astype(np.int16)
        made = np.concatenate([coder.decode(coder.encode(frame)) for frame in speech.reshape(-1, size)])
        return Reconstruction(to_24_khz(made.astype(np.float32) / 32768, RATE, len(waveform), delay))
