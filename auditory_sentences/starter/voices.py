"""Voices of the starter corpus: espeak-ng through ctypes, one voice = accent x timbre x pitch x vocal tract.

espeak-ng 1.52 comes as a PyPI package with its library and data (espeakng-loader), so nothing is installed by hand.
"""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
from dataclasses import dataclass
from functools import cache
from math import gcd, log2

import espeakng_loader
import numpy as np
from scipy.signal import resample_poly

from auditory_sentences.corpora.phones import Phone, Phones
from auditory_sentences.starter.randomness import choose, generator
from codec.io.errors import UserError
from codec.io.terminal import shown

SAMPLE_RATE = 24_000
ESPEAK_RATE = 22_050

# espeak-ng language -> accent in words. The West Midlands voice is left out: the independent recogniser, pocketsphinx
# with a digit grammar, gets less than half of its digits right, in any timbre.
ACCENTS = {
    "en-us": "american",
    "en-us-nyc": "new york",
    "en": "british",
    "en-gb-x-rp": "british",
    "en-gb-x-gbclan": "northern english",
    "en-gb-scotland": "scottish",
    "en-029": "caribbean",
}
# Close to that limit: voices to learn from, not to measure recognition with.
TRAIN_ONLY = ("en-gb-scotland", "en-029")

# espeak-ng variant -> fundamental frequency in Hz at pitch 50, measured. Left out are variants that whisper, croak or
# imitate robots, and those of whose digits, over all accents, the recogniser gets less than half right.
MALE = {
    "m1": 96, "m2": 103, "m3": 110, "m4": 98, "m5": 105, "m6": 105, "m8": 89, "Alex": 105, "Denis": 103, "Diogo": 108,
    "Gene": 98, "Gene2": 117, "Henrique": 114, "Hugo": 115, "Mike": 94, "Nguyen": 159, "adam": 105, "benjamin": 104,
    "david": 77, "ed": 131, "edward2": 104, "iven2": 104, "john": 103, "michel": 108, "miguel": 115, "paul": 88,
    "pedro": 105, "sandro": 102, "victor": 98, "max": 106, "antonio": 114, "mike2": 93, "Reed": 120, "grandpa": 112,
}  # fmt: skip
FEMALE = {
    "f1": 184, "f2": 202, "f3": 220, "f4": 184, "f5": 210, "anika": 271, "belinda": 232, "steph": 187,
}  # fmt: skip

# Fundamental frequencies in Hz of each pitch label. The middle third of every band is kept for dev and test voices.
PITCH_BANDS = {
    "male": {"low": (76, 91), "medium": (104, 122), "high": (140, 164)},
    "female": {"low": (152, 170), "medium": (190, 214), "high": (240, 270)},
}
SPEED_BANDS = {"slow": (112, 130), "medium": (155, 178), "fast": (215, 242)}  # words per minute
# A longer or shorter vocal tract moves all formants together: espeak's output is taken to have this rate instead.
TRACT_RATES = (20_400, 21_000, 21_600, 22_050, 22_500, 23_100, 23_700)


@dataclass(frozen=True)
class Voice:
    """One speaker."""

    # espeak-ng's, one of ACCENTS
    language: str
    # espeak-ng's, one of MALE or FEMALE: the timbre
    variant: str
    # low, medium or high, for a voice of its gender
    pitch: str
    # nominal fundamental, in Hz
    f0: float
    # the rate that espeak's output is taken to have, one of TRACT_RATES
    tract_rate: int

    @property
    def speaker(self) -> str:
        """Its name."""
        return f"{self.language}+{self.variant}-{self.pitch}"

    @property
    def gender(self) -> str:
        """As the variant has it."""
        return "male" if self.variant in MALE else "female"

    @property
    def labels(self) -> dict[str, str]:
        """What is known of all that it says."""
        return {"gender": self.gender, "pitch": self.pitch, "accent": ACCENTS[self.language]}


def _home_split(language: str, variant: str) -> str:
    """Split of a (language, variant) pair: each variant lends one language to dev and another one to test."""
    if language in TRAIN_ONLY:
        return "train"
    languages, variants = [name for name in ACCENTS if name not in TRAIN_ONLY], [*MALE, *FEMALE]
    turn = (languages.index(language) - variants.index(variant)) % len(languages)
    return {0: "dev", 3: "test"}.get(turn, "train")


@cache
def voices(split: str, count: int) -> tuple[Voice, ...]:
    """The first `count` voices of a split in a fixed order, men and women in turns; fewer where the split has fewer.

    Train and held-out voices share neither a (language, variant) pair nor a range of fundamental frequency.
    """
    found = [
        _voice(language, variant, pitch, split)
        for language in ACCENTS
        for variant in (*MALE, *FEMALE)
        if _home_split(language, variant) == split
        for pitch in ("low", "medium", "high")
    ]
    shuffled = [found[i] for i in generator(0, "voices", split).permutation(len(found))]
    turn = {voice: k for gender in PITCH_BANDS for k, voice in enumerate(v for v in shuffled if v.gender == gender)}
    return tuple(sorted(shuffled, key=turn.__getitem__)[:count])


def _voice(language: str, variant: str, pitch: str, split: str) -> Voice:
    """The voice with a fundamental and a vocal tract of its own, drawn by its name."""
    rng = generator(0, "voice", language, variant, pitch)
    low, high = PITCH_BANDS["male" if variant in MALE else "female"][pitch]
    third = rng.uniform(0, 1 / 3)
    place = third + (rng.integers(2) * 2 / 3 if split == "train" else 1 / 3)
    return Voice(language, variant, pitch, low + (high - low) * place, choose(rng, TRACT_RATES))


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng's speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("name", ctypes.c_char * 8),
    ]  # fmt: skip


_LIST_ENDS, _PHONEME = 0, 7  # types of events
_STRESS = "ˈˌ"


def _is_event(event: _Event) -> bool:
    return bool(event.type != _LIST_ENDS)


_Heard = list[tuple[int, str]]  # (sample at which it begins, name) of every phone, a pause being one without a name


def speak(text: str, voice: Voice, words_per_minute: float, monotone: bool = False) -> tuple[np.ndarray, Phones]:
    """Speech of one utterance, silence at both ends cut away, and when each phone is spoken.

    The voice's tract rate scales pitch and tempo too, so both are asked of espeak corrected by it. Phones are IPA
    without stress marks; a phone lasts until espeak begins the next one, or a pause, which is no phone.

    Args:
        text: At least one word.
        voice: Of the speaker.
        words_per_minute: As espeak-ng counts them.
        monotone: Stay at the voice's fundamental, as on a note.

    Returns:
        (n,) float32 at 24 kHz, peak at most 1, and the phones.

    Raises:
        UserError: espeak-ng cannot be loaded, lacks the voice, or has no sound for the text.
    """
    stretch = voice.tract_rate / ESPEAK_RATE
    measured = (MALE | FEMALE)[voice.variant]
    # espeak's pitch parameter is 50 at the variant's own pitch and doubles or halves the frequency every 50 steps.
    pitch = round(np.clip(50 + 50 * log2(voice.f0 / stretch / measured), 0, 99))
    name, speed = f"{voice.language}+{voice.variant}", round(words_per_minute / stretch)
    samples, heard = _espeak(text, name, pitch, speed, monotone)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    phones = _cut(heard, int(loud[0]), int(loud[-1]) + 1, voice.tract_rate)
    samples = samples[loud[0] : loud[-1] + 1]
    step = gcd(SAMPLE_RATE, voice.tract_rate)
    resampled = resample_poly(samples, SAMPLE_RATE // step, voice.tract_rate // step).astype(np.float32)
    return resampled / max(1.0, float(np.abs(resampled).max())), phones


def _cut(heard: _Heard, first: int, end: int, rate: int) -> Phones:
    """The phones between two samples, in seconds after the first of them."""
    starts = [sample for sample, _ in heard] + [end]
    found = []
    for (start, name), stop in zip(heard, starts[1:], strict=True):
        start, stop = max(start, first), min(stop, end)
        if name and start < stop:
            found.append(Phone((start - first) / rate, (stop - first) / rate, name))
    return tuple(found)


def _espeak(
    text: str, name: str, pitch: int, words_per_minute: int, monotone: bool = False
) -> tuple[np.ndarray, _Heard]:
    """Samples of espeak-ng at 22,050 Hz in [-1, 1], and its phones; the same for the same arguments.

    The library keeps oscillator phases in static variables from one utterance to the next, so it is loaded anew for
    every utterance (5 ms). Some voices, Reed among them, draw their breath from the C library's `rand`, which has to
    begin anew too. Both together make the output a function of the input.
    """
    chunks: list[np.ndarray] = []
    heard: _Heard = []

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in itertools.takewhile(_is_event, iter(events)) if events else ():
            if event.type == _PHONEME:
                heard.append((event.sample, event.name.decode(errors="replace").strip(_STRESS)))
        return 0

    kinds = ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    callback = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(collect)
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise UserError(
            f"espeak-ng cannot be loaded ({error}); run `pip install --force-reinstall espeakng-loader`"
        ) from error
    ctypes.CDLL(None).srand(1)  # of this process, the one that espeak-ng draws from
    try:
        synchronous, rate, pitch_parameter, range_parameter, utf8 = 2, 1, 3, 4, 1
        phoneme_events, in_ipa, do_not_exit = 1, 2, 1 << 15
        options = phoneme_events | in_ipa | do_not_exit
        opened = library.espeak_Initialize(synchronous, 0, espeakng_loader.get_data_path().encode(), options)
        if opened != ESPEAK_RATE:
            raise UserError("espeak-ng could not open its data; run `pip install --force-reinstall espeakng-loader`")
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"espeak-ng has no voice {name!r}; install espeakng-loader 0.2.4")
        library.espeak_SetParameter(rate, words_per_minute, 0)
        library.espeak_SetParameter(pitch_parameter, pitch, 0)
        if monotone:
            library.espeak_SetParameter(range_parameter, 0, 0)
        data = text.encode()
        library.espeak_Synth(data, len(data) + 1, 0, 1, 0, utf8, None, None)
        library.espeak_Synchronize()
        library.espeak_Terminate()
    finally:
        handle = library._handle
        del library
        _ctypes.dlclose(handle)
    if not any(chunk.any() for chunk in chunks):
        raise UserError(f"espeak-ng has no sound for {shown(text)}; give it words")
    return np.concatenate(chunks).astype(np.float32) / 32768, heard
