"""Clips of the starter corpus that were made of one another: edited, in a room, in noise, mixed, answered, sung.

What the tasks need that are about more than one clip (auditory_sentences/builders/tasks.py), with exact labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
from scipy.signal import correlate, fftconvolve, lfilter, resample_poly

from auditory_sentences.corpora.clip import Clip, Split
from auditory_sentences.corpora.phones import Phone, Phones
from auditory_sentences.starter.music import INSTRUMENTS, MODES, TEMPI, TONICS, Melody, draw_melody, play
from auditory_sentences.starter.randomness import choose, split_of
from auditory_sentences.starter.rendering import (
    LICENCE,
    Job,
    Rendered,
    RenderedClip,
    StarterSize,
    draw_voice,
    music_clip,
    recorded,
    speech_text,
    utter,
)
from auditory_sentences.starter.texts import COLOURS, OBJECTS, PEOPLE, THINGS, VERBS, belongs_to
from auditory_sentences.starter.voices import SAMPLE_RATE, SPEED_BANDS, Voice, speak, voices
from lm.words import DIGITS

Generator = np.random.Generator


# ---- one recording, edited

EDITS: Mapping[str, tuple[str, ...]] = {
    "faster": ("speak faster", "make it faster", "say it more quickly"),
    "slower": ("speak more slowly", "make it slower", "slow it down"),
    "higher": ("raise the pitch", "make the voice higher", "speak with a higher voice"),
    "lower": ("lower the pitch", "make the voice lower", "speak with a lower voice"),
    "louder": ("make it louder", "turn it up", "raise the volume"),
    "quieter": ("make it quieter", "turn it down", "lower the volume"),
    "word": ('say "{new}" in place of "{old}"', 'replace "{old}" by "{new}"', 'change "{old}" to "{new}"'),
}


def edit_of(instruction: str) -> str:
    """Which of EDITS an instruction asks for. Raises ValueError for another text."""
    for edit, phrasings in EDITS.items():
        if any(instruction.split('"')[0] == phrasing.split('"')[0] for phrasing in phrasings):
            return edit
    raise ValueError(f"{instruction!r} asks for none of the edits {', '.join(EDITS)}")


def _edit(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Speech, and the same after one change: rate by 1.4, pitch by a fourth, level by 8 dB, or one word."""
    voice, (text, content) = draw_voice(rng, job, size), speech_text(rng, job.split)
    edit = tuple(EDITS)[job.index % len(EDITS)]
    instruction, new_text = choose(rng, EDITS[edit]), text
    if edit == "word":
        new_text, old, new = _with_another_word(rng, text)
        while not belongs_to(new_text, job.split):
            text, content = speech_text(rng, job.split)
            new_text, old, new = _with_another_word(rng, text)
        instruction = instruction.format(old=old, new=new)
    rate = rng.uniform(*SPEED_BANDS["medium"])
    factor = {"faster": 1.4, "slower": 1 / 1.4}.get(edit, 1.0)
    pitch = {"higher": 4 / 3, "lower": 3 / 4}.get(edit, 1.0)
    decibels = {"louder": 8.0, "quieter": -8.0}.get(edit, 0.0)
    level = rng.uniform(-26, -22) if decibels <= 0 else rng.uniform(-32, -28)
    labels = {name: value for name, value in voice.labels.items() if name != "pitch"} | {"content": content}
    before, dry, phones = utter(rng, job, f"{job.name}-before", text, content, voice, "medium", rate=rate, level=level)
    changed = replace(voice, f0=voice.f0 * pitch)
    after, wave, later = utter(
        rng, job, f"{job.name}-after", new_text, content, changed, "medium", rate=rate * factor, level=level + decibels
    )
    after = replace(after, labels=labels, caption="", parts=(before.id,), instruction=instruction)
    return [RenderedClip(replace(before, labels=labels, caption=""), dry, phones), RenderedClip(after, wave, later)]


def _with_another_word(rng: Generator, text: str) -> tuple[str, str, str]:
    """(text with one word replaced by another of its kind, the old word, the new one)"""
    words = text.split()
    kinds = (DIGITS, COLOURS, OBJECTS, THINGS, VERBS)
    found = [(i, kind) for i, word in enumerate(words) for kind in kinds if word in kind]
    if not found:  # a text without any of these: its last word
        found = [(len(words) - 1, THINGS)]
    place, kind = choose(rng, found)
    old, new = words[place], choose(rng, [word for word in kind if word != words[place]])
    return " ".join([*words[:place], new, *words[place + 1 :]]), old, new


# ---- one recording, in a room

ROOMS = {"small room": (0.2, 0.4), "large room": (0.6, 0.9), "hall": (1.3, 1.9)}  # reverberation times in seconds


def impulse_response(rng: Generator, seconds: float) -> np.ndarray:
    """A room's: the direct sound, then noise that falls by 60 dB in so many seconds; (n,), of energy 1."""
    n = round(seconds * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    late = rng.standard_normal(n) * 10 ** (-3 * t / seconds)
    gap = round(rng.uniform(0.002, 0.012) * SAMPLE_RATE)  # before the first reflection
    response = np.concatenate([[1.0], np.zeros(gap), 0.12 * rng.uniform(0.5, 1.0) * late])
    return response / np.sqrt(np.sum(response**2))


def _room(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Speech, and the same as it is heard in a room."""
    voice, (text, content) = draw_voice(rng, job, size), speech_text(rng, job.split)
    dry = utter(rng, job, f"{job.name}-dry", text, content, voice, choose(rng, tuple(SPEED_BANDS)))
    room = tuple(ROOMS)[job.index % len(ROOMS)]
    response = impulse_response(rng, rng.uniform(*ROOMS[room]))
    tail = round(0.4 * SAMPLE_RATE)
    wet = fftconvolve(dry.wave, response)[: len(dry.wave) + tail]
    clip = replace(
        dry.clip, id=job.name, path=f"audio/{job.name}.flac", parts=(dry.clip.id,),
        labels=dry.clip.labels | {"room": room}, caption=f"{dry.clip.caption}, in a {room}",
    )  # fmt: skip
    return [dry, RenderedClip(clip, recorded(rng, wet), dry.phones)]


# ---- one recording, in noise

NOISES = ("hiss", "rumble", "hum", "chatter")


def noise_of(rng: Generator, name: str, samples: int, split: Split) -> np.ndarray:
    """One of NOISES, (samples,) of power 1: white; brown above 30 Hz; a mains' harmonics; four voices at once."""
    if name == "chatter":
        noise = np.zeros(samples)
        for _ in range(4):
            wave, _ = speak(speech_text(rng, split)[0], choose(rng, voices(split, 24)), rng.uniform(130, 190))
            noise += np.roll(np.resize(wave / np.sqrt(np.mean(wave**2)), samples), int(rng.integers(samples)))
    elif name == "hum":
        t, mains = np.arange(samples) / SAMPLE_RATE, choose(rng, (50, 60))
        noise = np.sum([np.sin(2 * np.pi * (k * mains * t + rng.random())) / k for k in range(1, 13)], axis=0)
    else:
        noise = rng.standard_normal(samples)
        if name == "rumble":
            noise = lfilter([1.0], [1.0, -np.exp(-2 * np.pi * 30 / SAMPLE_RATE)], noise)
    return noise / np.sqrt(np.mean(noise**2))


def _noisy(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Speech, and the same in a noise 0 to 12 dB below it."""
    voice, (text, content) = draw_voice(rng, job, size), speech_text(rng, job.split)
    clean = utter(rng, job, f"{job.name}-clean", text, content, voice, choose(rng, tuple(SPEED_BANDS)))
    name, snr = NOISES[job.index % len(NOISES)], float(rng.uniform(0, 12))
    level = np.sqrt(np.mean(clean.wave**2)) * 10 ** (-snr / 20)
    wave = clean.wave + level * noise_of(rng, name, len(clean.wave), job.split)
    scale = min(1.0, 0.95 / float(np.abs(wave).max()))
    both = replace(
        clean.clip, id=job.name, path=f"audio/{job.name}.flac", kind="mixture", parts=(clean.clip.id,),
        labels=clean.clip.labels | {"noise": name, "snr_db": f"{snr:.1f}"}, caption=f"{clean.clip.caption}, in {name}",
    )  # fmt: skip
    return [
        clean._replace(wave=(clean.wave * scale).astype(np.float32)),
        RenderedClip(both, (wave * scale).astype(np.float32)),
    ]


# ---- two at once


def _both(job: Job, parts: Rendered, caption: str, labels: Mapping[str, str]) -> Rendered:
    """Two clips and their sum, all scaled alike where it would clip."""
    length = max(len(part.wave) for part in parts)
    waves = [np.pad(part.wave, (0, length - len(part.wave))) for part in parts]
    scale = min(1.0, 0.95 / float(np.abs(np.sum(waves, axis=0)).max()))
    waves = [(wave * scale).astype(np.float32) for wave in waves]
    both = Clip(
        id=job.name, path=f"audio/{job.name}.flac", kind="mixture", split=job.split, caption=caption,
        labels=dict(labels), parts=tuple(part.clip.id for part in parts), licence=LICENCE, source=parts[0].clip.source,
    )  # fmt: skip
    made = [part._replace(wave=wave) for part, wave in zip(parts, waves, strict=True)]
    return [*made, RenderedClip(both, np.sum(waves, axis=0))]


def _duet(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Two speakers at once, within 3 dB of each other, the second up to half a second late."""
    voices: list[Voice] = []
    while len(voices) < 2:
        voice = draw_voice(rng, job, size)
        if voice not in voices or min(size.voices, size.held_out_voices) < 2:
            voices.append(voice)
    parts = []
    for name, voice in zip("ab", voices, strict=True):
        text, content = speech_text(rng, job.split)
        speed = choose(rng, tuple(SPEED_BANDS))
        level = rng.uniform(-25, -22)
        parts.append(utter(rng, job, f"{job.name}-{name}", text, content, voice, speed, level=level))
    late = round(rng.uniform(0, 0.5) * SAMPLE_RATE)
    clip, wave, phones = parts[1]
    parts[1] = RenderedClip(clip, np.pad(wave, (late, 0)), _later(phones, late / SAMPLE_RATE))
    who = {"malemale": "two men", "femalefemale": "two women"}.get(
        voices[0].gender + voices[1].gender, "a man and a woman"
    )
    return _both(job, parts, f"{who} talk at the same time", {"content": "two speakers"})


def _later(phones: Phones, seconds: float) -> Phones:
    return tuple(Phone(phone.start + seconds, phone.end + seconds, phone.name) for phone in phones)


def _band(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Two instruments at once, in one key and at one tempo, each with a melody of its own."""
    seconds = rng.uniform(2, 4)
    lead = draw_melody(rng, job.split, seconds)
    other = draw_melody(rng, job.split, seconds)
    other = replace(other, tonic=lead.tonic, mode=lead.mode, tempo=lead.tempo, bpm=lead.bpm)
    chosen = [INSTRUMENTS[job.index % len(INSTRUMENTS)]]
    chosen.append(choose(rng, [name for name in INSTRUMENTS if name not in chosen]))
    parts = []
    for name, melody, instrument in zip("ab", (lead, other), chosen, strict=True):
        wave = recorded(rng, play(melody, instrument, rng) * 10 ** (rng.uniform(-14, -8) / 20))
        parts.append(music_clip(rng, job, f"{job.name}-{name}", melody, instrument, wave))
    caption = f"{chosen[0]} and {chosen[1]} play together in {lead.tonic} {lead.mode}"
    return _both(job, parts, caption, {
        "content": "two instruments", "key": f"{lead.tonic} {lead.mode}", "tempo": lead.tempo, "bpm": str(lead.bpm),
    })  # fmt: skip


# ---- a question and its answer


def question(rng: Generator, split: str) -> tuple[str, str]:
    """(question, answer) in words that the corpus speaks; what is asked decides the split."""
    while True:
        asked, answer = _QUESTIONS[int(rng.integers(len(_QUESTIONS)))](rng)
        if split_of(asked) == split:
            return asked, answer


def _after(rng: Generator) -> tuple[str, str]:
    count = int(rng.integers(1, 4))
    first = int(rng.integers(10 - count))
    return f"what comes after {' '.join(DIGITS[first : first + count])}", DIGITS[first + count]


def _sum(rng: Generator) -> tuple[str, str]:
    a = int(rng.integers(10))
    b = int(rng.integers(10 - a))
    return f"what is {DIGITS[a]} plus {DIGITS[b]}", DIGITS[a + b]


def _last(rng: Generator) -> tuple[str, str]:
    digits = [DIGITS[int(rng.integers(10))] for _ in range(int(rng.integers(2, 5)))]
    which, answer = choose(rng, (("first", digits[0]), ("last", digits[-1])))
    return f"{' '.join(digits)}. what is the {which} of them", answer


def _colour(rng: Generator) -> tuple[str, str]:
    colour, thing = choose(rng, COLOURS), choose(rng, OBJECTS)
    return f"the {thing} is {colour}. what colour is the {thing}", colour


def _who(rng: Generator) -> tuple[str, str]:
    person, verb, thing = choose(rng, PEOPLE), choose(rng, VERBS), choose(rng, THINGS)
    asked, answer = choose(rng, ((f"who {verb} {thing}", person), (f"what does {person} have", thing)))
    return f"{person} {verb} {thing}. {asked}", answer


_QUESTIONS = (_after, _sum, _last, _colour, _who)


def _talk(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """One voice asks, another one answers: two consecutive clips."""
    asked, answer = question(rng, job.split)
    clips = []
    for position, text in enumerate((asked, answer)):
        voice = draw_voice(rng, job, size)
        clip, wave, phones = utter(
            rng, job, f"{job.name}-{position}", text, "sentence", voice, choose(rng, ("medium", "fast")),
            group=job.name, position=position,
        )  # fmt: skip
        clips.append(RenderedClip(replace(clip, instruction=asked if position else ""), wave, phones))
    return clips


# ---- a song


def _song(job: Job, rng: Generator, size: StarterSize) -> Rendered:
    """Words sung by espeak: one word to a note of a melody, each spoken at the note's pitch without intonation.

    The tonic is the one that is nearest to the voice.
    """
    text, _ = speech_text(rng, job.split)
    words, voice = text.split(), draw_voice(rng, job, size)
    tempo = choose(rng, ("slow", "medium"))
    bpm = int(rng.integers(*TEMPI[tempo], endpoint=True))
    tonic, mode = choose(rng, TONICS), choose(rng, tuple(MODES))
    degrees = [choose(rng, (0, 2, 4))]
    for step in rng.choice([-2, -1, 1, 2], len(words) - 1):
        degrees.append(int(np.clip(degrees[-1] + step, -2, 6)))
    degrees[-1] = 0
    beats = [choose(rng, (1.0, 1.0, 2.0)) for _ in words]
    melody = Melody(tuple(degrees), tuple(beats), tonic, mode, tempo, bpm)
    middle = 12 * np.log2(voice.f0 / 440) + 69  # MIDI note of the voice
    note_of_tonic = middle + (TONICS.index(tonic) - middle + 6) % 12 - 6  # the nearest that is the tonic
    notes = []
    for word, degree, length in zip(words, degrees, beats, strict=True):
        octave, step = divmod(degree, 7)
        pitch = 440 * 2 ** ((note_of_tonic + 12 * octave + MODES[mode][step] - 69) / 12)
        sung = _sung(word, voice, pitch)
        beat = round(length * 60 / bpm * SAMPLE_RATE)
        note = np.zeros(max(beat, len(sung)))
        note[: len(sung)] = sung / max(1e-3, np.sqrt(np.mean(sung**2)))
        notes.append(note)
    wave = np.concatenate(notes) * 10 ** (rng.uniform(-25, -21) / 20)
    labels = {"instrument": "voice", "gender": voice.gender} | melody.labels
    person = {"male": "man", "female": "woman"}[voice.gender]
    clip = Clip(
        id=job.name, path=f"audio/{job.name}.flac", kind="music", split=job.split, text=text,
        caption=f"a {person} sings in {tonic} {mode}", speaker=voice.speaker, labels=labels, licence=LICENCE,
        source=f"uniaudio starter, espeak-ng voice {voice.language}+{voice.variant} on the notes of a melody",
    )  # fmt: skip
    return [RenderedClip(clip, recorded(rng, wave))]


def _sung(word: str, voice: Voice, pitch: float) -> np.ndarray:
    """A word on one note. espeak's monotone lies somewhere below what is asked for, so it is measured and corrected."""
    asked = pitch
    for _ in range(2):
        wave, _ = speak(word, replace(voice, f0=asked), 150, monotone=True)
        heard = fundamental(wave, 0.6 * pitch, 1.25 * pitch)
        asked *= pitch / heard
    ratio = Fraction(heard / pitch).limit_denominator(100)
    return resample_poly(wave, ratio.numerator, ratio.denominator)


def fundamental(wave: np.ndarray, low: float, high: float) -> float:
    """Median fundamental frequency, in Hz between `low` and `high`, of the loud frames of a voice at 24 kHz."""
    size, found = 1440, []
    lags = np.arange(int(SAMPLE_RATE / high), int(SAMPLE_RATE / low) + 1)
    loud = 0.5 * np.sqrt(np.mean(wave**2))
    for start in range(0, max(1, len(wave) - size), 480):
        frame = wave[start : start + size]
        if np.sqrt(np.mean(frame**2)) >= loud:
            likeness = correlate(frame, frame, "full")[len(frame) - 1 :]
            known = lags[lags < len(likeness)]
            found.append(known[np.argmax(likeness[known] * len(frame) / (len(frame) - known))])
    return SAMPLE_RATE / float(np.median(found))


RENDERERS: Mapping[str, Callable[[Job, Generator, StarterSize], Rendered]] = {
    "edit": _edit, "room": _room, "noisy": _noisy, "duet": _duet, "band": _band, "talk": _talk, "song": _song,
}  # fmt: skip
SPOKEN = ("edit", "room", "noisy", "duet", "talk")  # those that render speech
