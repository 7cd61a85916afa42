"""Melodies of the starter corpus: a random walk in a key, played by one of eight instruments made in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, lfilter, sosfilt

from auditory_sentences.starter.randomness import choose, split_of

RATE = 24_000
Generator = np.random.Generator

INSTRUMENTS = ("piano", "organ", "flute", "guitar", "trumpet", "violin", "marimba", "bass")
TONICS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
MODES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}  # semitones above the tonic
TEMPI = {"slow": (60, 76), "medium": (100, 120), "fast": (165, 195)}  # beats per minute
# MIDI note of the octave's C in which the tonic lies
_REGISTER = {
    "piano": 60, "organ": 60, "flute": 72, "guitar": 48, "trumpet": 60, "violin": 67, "marimba": 60, "bass": 36,
}  # fmt: skip


@dataclass(frozen=True)
class Melody:
    """Notes, and a key and a tempo to play them in."""

    # of the scale, of each note: 0 is the tonic, 7 the tonic above
    degrees: tuple[int, ...]
    # length of each note
    beats: tuple[float, ...]
    # one of TONICS
    tonic: str
    # one of MODES
    mode: str
    # one of TEMPI
    tempo: str
    # beats per minute
    bpm: int

    @property
    def labels(self) -> dict[str, str]:
        """Of a clip that it is played in; the instrument is not among them."""
        return {"key": f"{self.tonic} {self.mode}", "tempo": self.tempo, "bpm": str(self.bpm)}

    @property
    def tune(self) -> str:
        """What makes two melodies the same tune in whatever key and tempo: degrees, lengths and mode."""
        return f"{self.mode} {self.degrees} {self.beats}"


def draw_melody(rng: Generator, split: str, seconds: float) -> Melody:
    """A melody of whole beats, at least three.

    Args:
        rng: Draws everything.
        split: That its tune belongs to.
        seconds: Of its length, about.
    """
    while True:
        tempo = choose(rng, tuple(TEMPI))
        bpm = int(rng.integers(*TEMPI[tempo], endpoint=True))
        total = max(3, round(seconds * bpm / 60))
        beats: list[float] = []
        while sum(beats) < total:
            long = [2.0] if tempo != "slow" and sum(beats) + 2 <= total else [0.5, 0.5]
            beats += choose(rng, ([1.0], [1.0], [1.0], [0.5, 0.5], long))
        steps = rng.choice([-2, -1, 1, 2, 4, -4], len(beats) - 1, p=[0.15, 0.3, 0.3, 0.15, 0.05, 0.05])
        degrees = [choose(rng, (0, 2, 4))]
        for step in steps:
            degrees.append(int(np.clip(degrees[-1] + step, -2, 8)))
        degrees[-1] = 0 if degrees[-1] < 4 else 7  # ends on the tonic, so that the key can be heard
        melody = Melody(tuple(degrees), tuple(beats), choose(rng, TONICS), choose(rng, tuple(MODES)), tempo, bpm)
        if split_of(melody.tune) == split:
            return melody


def music_caption(labels: dict[str, str], rng: Generator) -> str:
    """Caption that names instrument and tempo, and most times the key."""
    a = {**labels, "speed": {"slow": "slowly", "medium": "at a medium pace", "fast": "fast"}[labels["tempo"]]}
    a["an"] = "an" if labels["instrument"][0] in "aeiou" else "a"
    form = choose(
        rng,
        (
            "a {tempo} {instrument} melody in {key}",
            "a {tempo} melody played on the {instrument} in {key}",
            "{an} {instrument} plays {speed} in {key}",
            "{instrument} music in {key} at a {tempo} tempo",
            "a {tempo} {instrument} melody",
        ),
    )
    return form.format(**a)


def play(melody: Melody, instrument: str, rng: Generator) -> np.ndarray:
    """A melody, played.

    Args:
        melody: Says what, in which key and how fast.
        instrument: One of INSTRUMENTS.
        rng: Draws what differs from one instrument, and one touch, to the next.

    Returns:
        (n,) float32 at 24 kHz, peak 1, exactly as long as its beats.
    """
    beat = 60 / melody.bpm
    wave = np.zeros(round(sum(melody.beats) * beat * RATE) + RATE)
    character = rng.uniform(-1, 1)  # one instrument differs from the next of its kind
    start = 0.0
    for degree, length in zip(melody.degrees, melody.beats, strict=True):
        octave, step = divmod(degree, 7)
        note = _REGISTER[instrument] + TONICS.index(melody.tonic) + MODES[melody.mode][step] + 12 * octave
        if TONICS.index(melody.tonic) > 6:
            note -= 12  # keeps all keys within the same two octaves
        frequency = 440 * 2 ** ((note - 69) / 12)
        tone = _PLAYERS[instrument](rng, frequency, length * beat, character) * rng.uniform(0.8, 1)
        first = round(start * RATE)
        wave[first : first + len(tone)] += tone[: len(wave) - first]
        start += length * beat
    wave = wave[: round(start * RATE)]
    wave[-240:] *= np.linspace(1, 0, 240)
    return (wave / np.abs(wave).max()).astype(np.float32)


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * RATE)) / RATE


def _held(t: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Envelope of a sustained tone: rises over `attack` seconds, falls over the last `release` seconds."""
    return np.clip(np.minimum(t / attack, (t[-1] - t) / release), 0, 1)


def _harmonics(phase: np.ndarray, frequency: float, levels: Sequence[float] | Sequence[np.ndarray]) -> np.ndarray:
    """Sum of harmonics below 11 kHz; `levels[k]` of harmonic k + 1 is a number or a curve over time."""
    return sum(a * np.sin((k + 1) * phase) for k, a in enumerate(levels) if (k + 1) * frequency < 11_000)


def _vibrato(t: np.ndarray, frequency: float, hz: float, depth: float) -> np.ndarray:
    grown = np.minimum(t / 0.25, 1)
    return 2 * np.pi * np.cumsum(frequency * (1 + depth * grown * np.sin(2 * np.pi * hz * t))) / RATE


def _piano(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Struck string: slightly sharp partials, each dying faster than the one below."""
    t = _time(seconds + 0.25)
    wave = np.zeros(len(t))
    for k in range(1, 13):
        partial = k * frequency * np.sqrt(1 + 4e-4 * k * k)
        if partial < 11_000:
            wave += np.sin(2 * np.pi * partial * t) * np.exp(-t * (1.2 + 0.7 * k)) / k ** (1.1 + 0.2 * character)
    hammer = 0.15 * rng.standard_normal(len(t)) * np.exp(-t * 150)
    return (wave + hammer) * _held(t, 0.003, 0.25)


def _organ(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Pipes an octave apart, steady from start to end."""
    t = _time(seconds)
    phase = 2 * np.pi * frequency * t
    third = 0.5 + 0.2 * character
    levels = ((0.5, 0.8), (1, 1.0), (2, 0.8), (3, third), (4, 0.6), (6, 0.3), (8, 0.4))
    return sum(a * np.sin(ratio * phase) for ratio, a in levels) * _held(t, 0.015, 0.015) * 0.5


def _flute(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Almost a pure tone, with breath."""
    t = _time(seconds)
    phase = _vibrato(t, frequency, 4.5, 0.004)
    band = butter(1, [frequency * 0.8, min(frequency * 2.5, 11_000)], "bandpass", fs=RATE, output="sos")
    breath = sosfilt(band, rng.standard_normal(len(t))) * (0.08 + 0.03 * character)
    return (_harmonics(phase, frequency, (1, 0.12, 0.05)) + breath) * _held(t, 0.07, 0.06)


def _guitar(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Plucked string after Karplus and Strong: noise that circulates in a delay line with a soft filter."""
    n = round((seconds + 0.1) * RATE)
    period = RATE / frequency - 0.5
    delay, fraction = int(period), period - int(period)
    burst = np.zeros(n)
    burst[: delay + 1] = lfilter([1], [1, -0.3 - 0.2 * character], rng.uniform(-1, 1, delay + 1))
    # y[t] = x[t] + g * half-sum filter, read at a fractional delay
    loop = np.zeros(delay + 3)
    loop[0] = 1
    loop[delay : delay + 3] = -0.996 * 0.5 * np.array([1 - fraction, 1, fraction])
    return lfilter([1], loop, burst) * _held(np.arange(n) / RATE, 0.001, 0.1)


def _trumpet(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Brass: the louder, the brighter; upper harmonics come later and go earlier."""
    t = _time(seconds)
    loud = _held(t, 0.05, 0.06) * (0.85 + 0.15 * np.exp(-t * 8))
    phase = _vibrato(t, frequency, 5.0, 0.002)
    formant = 1300 + 200 * character
    levels = [loud ** (1 + 0.35 * k) / (1 + ((k + 1) * frequency / formant) ** 2) ** 0.5 for k in range(16)]
    return _harmonics(phase, frequency, levels)


def _violin(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Bowed string: a sawtooth with wide vibrato and a slow attack."""
    t = _time(seconds)
    phase = _vibrato(t, frequency, 5.8 + 0.5 * character, 0.012)
    bow = 0.03 * rng.standard_normal(len(t))
    return (_harmonics(phase, frequency, [1 / (k + 1) for k in range(20)]) + bow) * _held(t, 0.12, 0.08)


def _marimba(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Wooden bar: fundamental and fourth harmonic, gone within a third of a second."""
    t = _time(min(seconds, 0.5) + 0.2)
    wave = np.sin(2 * np.pi * frequency * t) * np.exp(-t * (9 + 2 * character))
    return (wave + 0.5 * np.sin(2 * np.pi * 3.98 * frequency * t) * np.exp(-t * 28)) * _held(t, 0.002, 0.05)


def _bass(rng: Generator, frequency: float, seconds: float, character: float) -> np.ndarray:
    """Electric bass: a dark pluck two octaves down."""
    t = _time(seconds)
    levels = [np.exp(-t * (0.8 + 1.1 * k)) / (k + 1) ** (0.6 + 0.2 * character) for k in range(8)]
    return _harmonics(2 * np.pi * frequency * t, frequency, levels) * _held(t, 0.006, 0.04)


_PLAYERS = {
    "piano": _piano, "organ": _organ, "flute": _flute, "guitar": _guitar, "trumpet": _trumpet, "violin": _violin,
    "marimba": _marimba, "bass": _bass,
}  # fmt: skip
