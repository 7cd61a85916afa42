"""What a starter corpus consists of: jobs, each rendering one to five clips that belong together.

Everything is a function of the corpus' seed and sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from auditory_sentences.corpora.clip import SPLITS, Clip
from auditory_sentences.starter import related
from auditory_sentences.starter.music import INSTRUMENTS, draw_melody, play
from auditory_sentences.starter.randomness import choose, generator
from auditory_sentences.starter.rendering import (
    LICENCE,
    Job,
    Rendered,
    RenderedClip,
    StarterSize,
    draw_voice,
    music_clip,
    recorded,
    sound_clip,
    speech_text,
    utter,
)
from auditory_sentences.starter.sounds import CLASSES
from auditory_sentences.starter.texts import draw_sentence
from auditory_sentences.starter.voices import SAMPLE_RATE, SPEED_BANDS, Voice

SPOKEN = ("speech", "same", "reading", "mixture", *related.SPOKEN)  # the kinds of jobs that render speech


DEMO = StarterSize()
ALL_TASKS = replace(DEMO, related=1000)
SMALL = StarterSize(speech=12, sound=6, music=4, mixtures=1, recordings=1, held_out=2, voices=8, held_out_voices=4)
SMALL_ALL_TASKS = replace(SMALL, related=3, held_out=10)


def plan(size: StarterSize) -> Iterator[Job]:
    """All jobs of a corpus, in the order of its clips."""
    for split in SPLITS:
        train = split == "train"
        counts = {
            # 70 % of the speech clips stand alone; the others come as one text in two to four voices, three on average
            "speech": round(0.7 * (size.speech if train else size.held_out)),
            "same": round(0.1 * (size.speech if train else size.held_out)),
            "sound": size.sound if train else size.held_out,
            "music": size.music if train else size.held_out,
            "mixture": size.mixtures if train else size.held_out // 10,
            "reading": size.recordings if train else size.held_out // 10,
            "suite": size.recordings if train else size.held_out // 10,
            **dict.fromkeys(related.RENDERERS, (size.related if train else size.held_out // 5) if size.related else 0),
        }
        for kind, count in counts.items():
            yield from (Job(kind, split, i) for i in range(count))


def render(job: Job, seed: int, size: StarterSize) -> Rendered:
    """The clips of a job, a function of the arguments alone.

    Args:
        job: One of `plan(size)`.
        seed: Of the corpus.
        size: Of the corpus.
    """
    return _RENDERERS[job.kind](job, generator(seed, job.kind, job.split, job.index), size)


def _speech(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    text, content = speech_text(rng, job.split)
    voice, speed = draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    return [utter(rng, job, job.name, text, content, voice, speed)]


def _same(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """One text in two to four different voices."""
    text, content = speech_text(rng, job.split)
    clips: Rendered = []
    chosen: list[Voice] = []
    for _ in range(2 + job.index % 3):
        voice = draw_voice(rng, job, size)
        while voice in chosen and len(chosen) < min(size.voices, size.held_out_voices):
            voice = draw_voice(rng, job, size)
        chosen.append(voice)
        name = f"{job.name}-{len(chosen)}"
        clips.append(utter(rng, job, name, text, content, voice, choose(rng, tuple(SPEED_BANDS))))
    return clips


def _reading(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """A long recording: one voice reads three to five sentences at one speed."""
    voice, speed = draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    return [
        utter(rng, job, f"{job.name}-{i}", draw_sentence(rng, job.split), "sentence", voice, speed,
               group=job.name, position=i)
        for i in range(3 + job.index % 3)
    ]  # fmt: skip


def _sound(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    # every class equally often; held-out clips too
    return [sound_clip(rng, job, job.name, CLASSES[job.index % len(CLASSES)], rng.uniform(1.5, 3))]


def _music(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    melody = draw_melody(rng, job.split, rng.uniform(2, 4))
    instrument = INSTRUMENTS[job.index % len(INSTRUMENTS)]
    wave = recorded(rng, play(melody, instrument, rng) * 10 ** (rng.uniform(-10, -2) / 20))
    return [music_clip(rng, job, job.name, melody, instrument, wave)]


def _suite(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """A long recording: one melody of about ten seconds, cut at beats into three to five clips."""
    parts = 3 + job.index % 3
    melody = draw_melody(rng, job.split, rng.uniform(2.2, 3.2) * parts)
    instrument = INSTRUMENTS[job.index % len(INSTRUMENTS)]
    wave = recorded(rng, play(melody, instrument, rng) * 10 ** (rng.uniform(-10, -2) / 20))
    beat = 60 / melody.bpm * SAMPLE_RATE
    beats = sum(melody.beats)
    cuts = [round(round(beats * i / parts) * beat) for i in range(parts)] + [len(wave)]
    return [
        music_clip(rng, job, f"{job.name}-{i}", melody, instrument, wave[cuts[i] : cuts[i + 1]],
                    group=job.name, position=i)
        for i in range(parts)
    ]  # fmt: skip


def _mixture(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """Speech over a sound event, 0 to 12 dB louder, with the two clean parts: the mixture is exactly their sum."""
    text, content = speech_text(rng, job.split)
    voice, speed = draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    spoken, speech, phones = utter(rng, job, f"{job.name}-speech", text, content, voice, speed)
    if len(speech) < SAMPLE_RATE:  # long enough for every class of sound to happen
        speech = np.pad(speech, (0, SAMPLE_RATE - len(speech)))
    event = CLASSES[job.index % len(CLASSES)]
    heard, noise, _ = sound_clip(rng, job, f"{job.name}-sound", event, len(speech) / SAMPLE_RATE)
    noise = noise[: len(speech)]
    snr = float(rng.uniform(0, 12))
    noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    scale = min(1.0, 0.95 / float(np.abs(speech + noise).max()), 0.95 / float(np.abs(noise).max()))
    speech, noise = speech * scale, noise * scale
    both = Clip(
        id=job.name, path=f"audio/{job.name}.flac", kind="mixture", split=job.split, text=text,
        caption=f"{spoken.caption}, and {heard.caption} in the background", speaker=voice.speaker,
        labels=spoken.labels | heard.labels | {"snr_db": f"{snr:.1f}"}, parts=(spoken.id, heard.id),
        licence=LICENCE, source=spoken.source,
    )  # fmt: skip
    return [RenderedClip(spoken, speech, phones), RenderedClip(heard, noise), RenderedClip(both, speech + noise)]


_RENDERERS = {
    "speech": _speech, "same": _same, "reading": _reading, "sound": _sound, "music": _music, "suite": _suite,
    "mixture": _mixture, **related.RENDERERS,
}  # fmt: skip
