"""Twelve classes of sound events, each a random recipe in numpy, apart in spectrum and in time.

Every class is a function `(rng, n) -> (n,) float64` at 24 kHz, at any scale; `sound` brings it to level.
The class name is a word of each of its captions and of no other class's.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

from auditory_sentences.starter.randomness import choose

RATE = 24_000
Generator = np.random.Generator

CAPTIONS: dict[str, tuple[str, ...]] = {
    "rain": ("rain is falling", "heavy rain falls on a roof", "the sound of rain"),
    "wind": ("wind is blowing", "a strong wind howls", "the sound of wind"),
    "thunder": ("thunder rolls", "loud thunder rumbles", "the sound of thunder"),
    "engine": ("an engine is running", "a car engine idles", "the sound of an engine"),
    "siren": ("a siren wails", "a police siren goes by", "the sound of a siren"),
    "bell": ("a bell rings", "a large church bell tolls", "the sound of a bell"),
    "phone": ("a phone is ringing", "an old phone rings", "the sound of a phone"),
    "bird": ("a bird is chirping", "a small bird sings", "the sound of a bird"),
    "dog": ("a dog is barking", "a big dog barks", "the sound of a dog"),
    "clock": ("a clock is ticking", "an old clock ticks", "the sound of a clock"),
    "footsteps": ("footsteps are heard", "slow heavy footsteps", "the sound of footsteps"),
    "glass": ("glass is breaking", "a piece of glass shatters", "the sound of breaking glass"),
}
CLASSES = tuple(CAPTIONS)


def sound(event: str, rng: Generator, seconds: float) -> np.ndarray:
    """One sound event.

    Args:
        event: One of CLASSES.
        rng: Draws what differs from one to the next.
        seconds: Of its length.

    Returns:
        (n,) float32 at 24 kHz, peak 1, faded over 5 ms at both ends.
    """
    wave = _MAKERS[event](rng, round(seconds * RATE))
    wave[:120] *= np.linspace(0, 1, 120)
    wave[-120:] *= np.linspace(1, 0, 120)
    return (wave / np.abs(wave).max()).astype(np.float32)


def sound_caption(event: str, rng: Generator) -> str:
    """One of the captions of a class."""
    return choose(rng, CAPTIONS[event])


def _noise(rng: Generator, n: int, low: float | None, high: float | None, order: int = 2) -> np.ndarray:
    """White noise between two frequencies in Hz (None: open end), unit deviation."""
    edges, kind = ([low, high], "bandpass") if low and high else ((low or high), "highpass" if low else "lowpass")
    wave = sosfilt(butter(order, edges, kind, fs=RATE, output="sos"), rng.standard_normal(n + 2400))[2400:]
    return wave / wave.std()


def _slow(rng: Generator, n: int, hz: float) -> np.ndarray:
    """Smooth random curve in [0, 1] with about `hz` turning points a second."""
    points = rng.uniform(0, 1, max(2, int(n / RATE * hz) + 2))
    return np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), points)


def _phase(frequency: np.ndarray) -> np.ndarray:
    return 2 * np.pi * np.cumsum(frequency) / RATE


def _add(wave: np.ndarray, start: int, event: np.ndarray) -> None:
    """Add an event that may run over the end."""
    event = event[: max(0, len(wave) - start)]
    wave[start : start + len(event)] += event


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * RATE)) / RATE


def _rain(rng: Generator, n: int) -> np.ndarray:
    """Steady hiss above 2 kHz with hundreds of short drops."""
    wave = 0.5 * _noise(rng, n, rng.uniform(2000, 3500), None)
    for start in rng.integers(0, n, int(n / RATE * rng.uniform(80, 200))):
        t = _time(0.008)
        drop = np.sin(2 * np.pi * rng.uniform(3000, 8000) * t) * np.exp(-t * 700)
        _add(wave, start, rng.uniform(1, 4) * drop)
    return wave


def _wind(rng: Generator, n: int) -> np.ndarray:
    """Gusts: a narrow band of noise whose centre wanders between 300 and 900 Hz."""
    centre = 300 + 600 * _slow(rng, n, rng.uniform(1.5, 3))
    carrier = _noise(rng, n, None, rng.uniform(50, 90)) * np.cos(_phase(centre))
    return (carrier + 0.15 * _noise(rng, n, 150, 600)) * (0.25 + _slow(rng, n, rng.uniform(2, 4)))


def _thunder(rng: Generator, n: int) -> np.ndarray:
    """A crack, then a rumble below 150 Hz that dies away in rolls."""
    t = np.arange(n) / RATE
    rumble = _noise(rng, n, 30, rng.uniform(110, 160)) * (0.3 + _slow(rng, n, 6)) * np.exp(-t * rng.uniform(0.6, 1.3))
    crack = 0.5 * _noise(rng, n, 150, 2500) * np.exp(-t * rng.uniform(10, 18))
    onset = int(rng.uniform(0.02, 0.15) * RATE)
    return np.concatenate([np.zeros(onset), (rumble + crack)[: n - onset]]) + 1e-3 * rng.standard_normal(n)


def _engine(rng: Generator, n: int) -> np.ndarray:
    """Rich harmonics of 45 to 90 Hz, roughly pulsed at half that rate."""
    f0 = rng.uniform(45, 90) * (1 + 0.15 * _slow(rng, n, 1.5))
    phase = _phase(f0)
    wave = sum(np.sin(k * phase + rng.uniform(0, 6)) / k**0.7 for k in range(1, 25))
    return wave * (0.6 + 0.4 * np.sin(phase / 2)) + 0.3 * _noise(rng, n, 100, 800)


def _siren(rng: Generator, n: int) -> np.ndarray:
    """A tone that sweeps up and down between about 600 and 1400 Hz."""
    t = np.arange(n) / RATE
    turn = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.7, 1.6) * t + rng.uniform(0, 6))
    phase = _phase(rng.uniform(550, 700) + rng.uniform(600, 800) * turn)
    return np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)


def _bell(rng: Generator, n: int) -> np.ndarray:
    """Strokes of a church bell: inharmonic partials that ring for seconds."""
    wave, strike, f0 = np.zeros(n), int(rng.uniform(0.02, 0.1) * RATE), rng.uniform(220, 420)
    while strike < n - RATE // 4:
        t = np.arange(n - strike) / RATE
        for ratio, level, decay in ((0.5, 0.6, 0.8), (1, 1, 1.2), (1.19, 0.8, 1.6), (1.5, 0.5, 2), (2, 0.9, 2.2),
                                    (2.5, 0.4, 3), (3.01, 0.4, 4), (4.17, 0.3, 5)):  # fmt: skip
            wave[strike:] += level * np.sin(2 * np.pi * f0 * ratio * t) * np.exp(-t * decay)
        strike += int(rng.uniform(0.9, 1.5) * RATE)
    return wave


def _phone(rng: Generator, n: int) -> np.ndarray:
    """An electric ringer: two high tones trilled 15 to 25 times a second, in bursts."""
    t = np.arange(n) / RATE
    low, high, trill = rng.uniform(1500, 1800), rng.uniform(2200, 2600), rng.uniform(15, 25)
    upper = np.sin(2 * np.pi * trill * t) > 0
    wave = np.sin(_phase(np.where(upper, high, low)))
    burst, gap = rng.uniform(0.4, 0.7), rng.uniform(0.15, 0.3)
    return wave * (((t + rng.uniform(0, 0.1)) % (burst + gap)) < burst) + 1e-3 * rng.standard_normal(n)


def _bird(rng: Generator, n: int) -> np.ndarray:
    """Groups of chirps: fast sweeps between 3 and 6.5 kHz."""
    wave, start = 1e-3 * rng.standard_normal(n), int(rng.uniform(0, 0.15) * RATE)
    base, rise = rng.uniform(3000, 4200), rng.uniform(800, 2200) * choose(rng, (-1, 1))
    length, gap, group = rng.uniform(0.06, 0.14), rng.uniform(0.03, 0.08), int(rng.integers(2, 6))
    while start < n:
        for _ in range(group):
            t = _time(length * rng.uniform(0.85, 1.15))
            x = np.linspace(0, 1, len(t))
            chirp = np.sin(_phase(base + abs(min(rise, 0)) + rise * x)) * np.sin(np.pi * x)
            _add(wave, start, chirp)
            start += len(t) + int(gap * RATE)
        start += int(rng.uniform(0.2, 0.4) * RATE)
    return wave


def _dog(rng: Generator, n: int) -> np.ndarray:
    """Barks: a rough voiced burst whose pitch rises and falls within a fifth of a second."""
    wave, start = 1e-3 * rng.standard_normal(n), int(rng.uniform(0.02, 0.15) * RATE)
    base, formant = rng.uniform(280, 450), rng.uniform(700, 1100)
    while start < n - RATE // 8:
        t = _time(rng.uniform(0.13, 0.2))
        x = np.linspace(0, 1, len(t))
        phase = _phase(base * (0.75 + 0.5 * np.sin(np.pi * x**0.6)))
        harmonics = np.arange(1, 13)
        levels = np.exp(-(((harmonics * base - formant) / 700) ** 2)) + 0.15 / harmonics
        bark = sum(a * np.sin(k * phase) for k, a in zip(harmonics, levels, strict=True))
        bark = (bark + 0.5 * _noise(rng, len(t), 500, 3000)) * np.minimum(x * 12, 1) * (1 - x) ** 0.8
        _add(wave, start, bark * rng.uniform(0.8, 1))
        start += len(t) + int(rng.uniform(0.18, 0.45) * RATE)
    return wave


def _clock(rng: Generator, n: int) -> np.ndarray:
    """Ticks and tocks of a few milliseconds, exactly regular."""
    wave, period = 5e-4 * rng.standard_normal(n), rng.uniform(0.25, 0.5)
    tick, tock = rng.uniform(2500, 4500), rng.uniform(1600, 2400)
    t = _time(0.03)
    for i, start in enumerate(np.arange(rng.uniform(0.02, 0.1), n / RATE, period)):
        click = np.sin(2 * np.pi * (tick, tock)[i % 2] * t) * np.exp(-t * 250)
        click[:48] += rng.standard_normal(48)
        _add(wave, int(start * RATE), click)
    return wave


def _footsteps(rng: Generator, n: int) -> np.ndarray:
    """Thuds below 250 Hz with a short scrape, nearly regular."""
    wave, start, period = 5e-4 * rng.standard_normal(n), rng.uniform(0.02, 0.15), rng.uniform(0.4, 0.65)
    pitch = rng.uniform(70, 120)
    while start < n / RATE:
        t = _time(0.16)
        thud = np.sin(2 * np.pi * pitch * t * np.exp(-2 * t)) * np.exp(-t * 28) * 2
        scrape = 0.35 * _noise(rng, len(t), 300, 1500) * np.exp(-(((t - 0.05) / 0.025) ** 2))
        _add(wave, int(start * RATE), (thud + scrape) * rng.uniform(0.8, 1))
        start += period * rng.uniform(0.95, 1.05)
    return wave


def _glass(rng: Generator, n: int) -> np.ndarray:
    """A crash of broad noise, then shards that tinkle between 3 and 10 kHz."""
    wave, onset = 5e-4 * rng.standard_normal(n), int(rng.uniform(0.05, 0.2) * RATE)
    t = _time(0.25)
    _add(wave, onset, 0.8 * _noise(rng, len(t), 1500, 10000) * np.exp(-t * 22))
    for _ in range(int(rng.integers(25, 45))):
        t = _time(0.3)
        shard = np.sin(2 * np.pi * rng.uniform(3000, 10000) * t) * np.exp(-t * rng.uniform(12, 40))
        delay = rng.exponential(0.3)
        _add(wave, onset + int(delay * RATE), shard * rng.uniform(0.2, 1) * np.exp(-delay))
    return wave


_MAKERS = {
    "rain": _rain, "wind": _wind, "thunder": _thunder, "engine": _engine, "siren": _siren, "bell": _bell,
    "phone": _phone, "bird": _bird, "dog": _dog, "clock": _clock, "footsteps": _footsteps, "glass": _glass,
}  # fmt: skip
