"""Voices of the starter corpus: reproducible, of one split only, and as high and fast as they are called."""

import ast
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

from auditory_sentences.corpora.clip import SPLITS
from auditory_sentences.starter import voices
from codec.io.errors import UserError

SAY = """
import hashlib
from auditory_sentences.starter.voices import ACCENTS, Voice, speak

def heard(variants):
    languages = sorted(ACCENTS)
    said = {}
    for variant in variants:
        language = languages[(len(variant) + ord(variant[-1])) % len(languages)]
        wave, _ = speak("six", Voice(language, variant, "medium", 150.0, 22_050), 200)
        said[variant] = hashlib.sha256(wave.tobytes()).hexdigest()
    return said
"""


def test_every_voice_says_the_same_after_any_other_and_in_any_process():
    here = {}
    exec(SAY, here)
    variants = [*voices.MALE, *voices.FEMALE]
    forth, back = here["heard"](variants), here["heard"](reversed(variants))
    assert forth == back and len(set(forth.values())) == len(forth) == 42
    few = ["f3", "Reed", "m1", "Reed", "Alex"]  # Reed draws its breath from the C library's random numbers
    there = subprocess.run(
        [sys.executable, "-c", f"{SAY}\nprint(heard({few}))"], capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(there.stdout) == {variant: forth[variant] for variant in few}


def test_held_out_voices_share_neither_timbre_nor_pitch_with_train():
    of = {split: voices.voices(split, 10_000) for split in SPLITS}
    pairs = {split: {(v.language, v.variant) for v in of[split]} for split in SPLITS}
    assert not pairs["train"] & (pairs["dev"] | pairs["test"]) and not pairs["dev"] & pairs["test"]
    for gender, bands in voices.PITCH_BANDS.items():
        for pitch, (low, high) in bands.items():
            third = (high - low) / 3
            for split in SPLITS:
                for v in of[split]:
                    if (v.gender, v.pitch) == (gender, pitch):
                        assert low <= v.f0 <= high
                        assert (low + third <= v.f0 <= high - third) == (split != "train")
    assert len(of["train"]) >= 300 and min(len(of["dev"]), len(of["test"])) >= 24
    for split, count in (("train", 300), ("dev", 24), ("test", 24)):
        chosen = voices.voices(split, count)
        assert len({v.speaker for v in chosen}) == count
        assert 0.35 < np.mean([v.gender == "female" for v in chosen]) < 0.65


def fundamental(wave, low=60, high=400):
    """Median of the loud frames' autocorrelation peaks, in Hz."""
    found = []
    for start in range(0, len(wave) - 2048, 600):
        frame = wave[start : start + 2048] - wave[start : start + 2048].mean()
        if frame.std() < 0.3 * wave.std():
            continue
        spectrum = np.fft.rfft(frame * np.hanning(2048), 4096)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        lags = np.arange(24_000 // high, 24_000 // low)
        found.append(24_000 / lags[correlation[lags].argmax()])
    return np.median(found)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_pitch_labels(gender):
    measured = defaultdict(list)
    chosen = [v for v in voices.voices("train", 300) if v.gender == gender]
    for voice in chosen[:24]:
        measured[voice.pitch].append(fundamental(voices.speak("my mother likes milk right now", voice, 165)[0]))
    medians = [np.median(measured[pitch]) for pitch in ("low", "medium", "high")]
    for pitch, median in zip(("low", "medium", "high"), medians, strict=True):
        low, high = voices.PITCH_BANDS[gender][pitch]
        assert 0.9 * low < median < 1.1 * high


def test_speed_labels():
    voice = voices.voices("train", 300)[7]
    lengths = {
        speed: len(voices.speak("the old horse runs by the river", voice, sum(band) / 2)[0])
        for speed, band in voices.SPEED_BANDS.items()
    }
    assert lengths["slow"] > 1.2 * lengths["medium"] > 1.2 * 1.2 * lengths["fast"]


def test_every_accent_and_timbre_speaks():
    """Every variant once, in turns over the languages: espeak-ng knows them all."""
    languages = list(voices.ACCENTS)
    for k, variant in enumerate((*voices.MALE, *voices.FEMALE)):
        voice = voices.Voice(languages[k % len(languages)], variant, "medium", 150.0, 22_050)
        assert 0.2 < len(voices.speak("seven", voice, 160)[0]) / 24_000 < 1.5


def test_an_unknown_voice_is_named():
    with pytest.raises(UserError, match="no voice 'en-xx.m1'"):
        voices.speak("one", voices.Voice("en-xx", "m1", "low", 90.0, 22_050), 160)


VOICE = voices.Voice("en-us", "m3", "medium", 110.0, 21_600)


def test_phones_are_in_order_within_the_utterance_and_named_without_stress():
    wave, phones = voices.speak("three seven one", VOICE, 165)
    assert [phone.name for phone in phones] == ["θ", "ɹ", "iː", "s", "ɛ", "v", "ə", "n", "w", "ʌ", "n"]
    assert phones[0].start == 0.0 and phones[-1].end == pytest.approx(len(wave) / 24_000, abs=1e-4)
    assert all(a.start < a.end == b.start for a, b in zip(phones, phones[1:], strict=False))


def test_a_pause_is_no_phone_and_is_silent():
    wave, phones = voices.speak("seven, one", VOICE, 165)
    (before, after), *more = [(a, b) for a, b in zip(phones, phones[1:], strict=False) if b.start > a.end]
    assert not more and (before.name, after.name) == ("n", "w")
    inside = wave[round((before.end + 0.03) * 24_000) : round((after.start - 0.03) * 24_000)]
    assert len(inside) > 1_000 and np.abs(inside).max() < 0.02 * np.abs(wave).max()
    begins = after.start + np.flatnonzero(np.abs(wave[round(after.start * 24_000) :]) > 0.05)[0] / 24_000
    assert begins - after.start < 0.03  # within the first periods of the glide


@pytest.mark.parametrize("rate", [20_400, 22_050, 23_700])
def test_hiss_and_vowel_change_where_the_times_say(rate):
    """In "see" the zero crossings of the hiss end, in all tract rates, where the vowel begins."""
    voice = voices.Voice("en-us", "m3", "medium", 110.0, rate)
    wave, phones = voices.speak("see see see", voice, 140)
    assert [phone.name for phone in phones] == ["s", "iː"] * 3
    crossings = np.abs(np.diff(np.signbit(wave).astype(np.int8)))
    for hiss, vowel in zip(phones[::2], phones[1::2], strict=True):

        def share(start, end):
            return crossings[round(start * 24_000) : round(end * 24_000)].mean()

        assert share(hiss.start + 0.02, hiss.end - 0.01) > 0.3 > 0.2 > share(vowel.start + 0.01, vowel.end - 0.02)


def test_phones_of_a_clip_count_the_silence_before_it():
    from auditory_sentences.starter.jobs import DEMO, Job, render

    ((clip, wave, phones),) = render(Job("speech", "test", 1), 0, DEMO)
    loud = np.abs(wave) > 0.02 * np.abs(wave).max()
    first, last = np.flatnonzero(loud)[[0, -1]] / 24_000
    assert clip.kind == "speech" and phones[0].start == pytest.approx(first, abs=0.005) and phones[0].start > 0.039
    assert phones[-1].end == pytest.approx(last, abs=0.01) and phones[-1].end < len(wave) / 24_000 - 0.039
