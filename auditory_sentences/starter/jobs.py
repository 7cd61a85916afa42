"""What a starter corpus consists of: jobs, each rendering one to five clips that belong together.

Everything is a function of the corpus' seed and sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from auditory_sentences.corpora.clip import SPLITS, Clip, Split
from auditory_sentences.corpora.phones import Phone, Phones
from auditory_sentences.starter.music import INSTRUMENTS, Melody, draw_melody, music_caption, play
from auditory_sentences.starter.randomness import choose, generator
from auditory_sentences.starter.sounds import CLASSES, sound, sound_caption
from auditory_sentences.starter.texts import draw_digits, draw_sentence, style_caption
from auditory_sentences.starter.voices import SAMPLE_RATE, SPEED_BANDS, Voice, speak, voices
from codec.io.errors import UserError


class RenderedClip(NamedTuple):
    """A clip with what is heard."""

    # what is known of it
    clip: Clip
    # (n,) float32 at 24 kHz
    wave: np.ndarray
    # of speech alone, and of no mixture: when each of its phones is spoken
    phones: Phones = ()


Rendered = list[RenderedClip]
SPOKEN = ("speech", "same", "reading", "mixture")  # the kinds of jobs that render speech
_LICENCE = "CC0-1.0"


@dataclass(frozen=True)
class StarterSize:
    """How many clips of each kind a starter corpus has; the defaults make about three and a half hours.

    Raises:
        UserError: A number is out of range.
    """

    # training clips of speech that stand alone or share a text
    speech: int = 5000
    # training clips of sound events
    sound: int = 480
    # training clips of music
    music: int = 400
    # training mixtures, each with its two clean parts as clips of their own
    mixtures: int = 100
    # long training recordings of speech and as many of music, three to five consecutive clips each
    recordings: int = 25
    # clips of each kind in dev, and again in test; mixtures and recordings have a tenth of that
    held_out: int = 100
    # speakers in train
    voices: int = 600
    # speakers in dev, and again in test
    held_out_voices: int = 24

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low = 1 if "voices" in name else 0
            if type(value) is not int or not low <= value <= 10**6:
                raise UserError(f"starter corpus: {name} must be a whole number from {low} to a million, not {value!r}")


DEMO = StarterSize()
SMALL = StarterSize(speech=12, sound=6, music=4, mixtures=1, recordings=1, held_out=2, voices=8, held_out_voices=4)


@dataclass(frozen=True)
class Job:
    """One call of a renderer."""

    # which renderer: a key of `_RENDERERS`
    kind: str
    # of its clips
    split: Split
    # among the jobs of its kind and split, from 0
    index: int

    @property
    def name(self) -> str:
        """What the ids of its clips begin with."""
        return f"{self.split}-{self.kind}-{self.index:05d}"


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


def _speech_text(rng: np.random.Generator, split: str) -> tuple[str, str]:
    """(text, content label)"""
    return (draw_digits(rng, split), "digits") if rng.random() < 0.65 else (draw_sentence(rng, split), "sentence")


def _draw_voice(rng: np.random.Generator, job: Job, size: StarterSize) -> Voice:
    return choose(rng, voices(job.split, size.voices if job.split == "train" else size.held_out_voices))


def _utter(
    rng: np.random.Generator,
    job: Job,
    name: str,
    text: str,
    content: str,
    voice: Voice,
    speed: str,
    group: str = "",
    position: int = 0,
) -> RenderedClip:
    """One speech clip: espeak's utterance with short silences around it, at a random level over faint noise."""
    wave, phones = speak(text, voice, rng.uniform(*SPEED_BANDS[speed]))
    silence = [round(rng.uniform(0.04, 0.12) * SAMPLE_RATE) for _ in range(2)]
    wave = np.pad(wave, silence)
    begins = silence[0] / SAMPLE_RATE
    rms = np.sqrt(np.mean(wave**2))
    wave = wave * (10 ** (rng.uniform(-26, -19) / 20) / rms)
    labels = voice.labels | {"speed": speed, "content": content}
    clip = Clip(
        id=name, path=f"audio/{name}.flac", kind="speech", split=job.split, text=text,
        caption=style_caption(labels, rng), speaker=voice.speaker, labels=labels, licence=_LICENCE,
        source=f"uniaudio starter, espeak-ng voice {voice.language}+{voice.variant}",
        group=group, position=position,
    )  # fmt: skip
    times = tuple(Phone(begins + phone.start, begins + phone.end, phone.name) for phone in phones)
    return RenderedClip(clip, _recorded(rng, wave), times)


def _speech(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    text, content = _speech_text(rng, job.split)
    voice, speed = _draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    return [_utter(rng, job, job.name, text, content, voice, speed)]


def _same(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """One text in two to four different voices."""
    text, content = _speech_text(rng, job.split)
    clips: Rendered = []
    chosen: list[Voice] = []
    for _ in range(2 + job.index % 3):
        voice = _draw_voice(rng, job, size)
        while voice in chosen and len(chosen) < min(size.voices, size.held_out_voices):
            voice = _draw_voice(rng, job, size)
        chosen.append(voice)
        name = f"{job.name}-{len(chosen)}"
        clips.append(_utter(rng, job, name, text, content, voice, choose(rng, tuple(SPEED_BANDS))))
    return clips


def _reading(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """A long recording: one voice reads three to five sentences at one speed."""
    voice, speed = _draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    return [
        _utter(rng, job, f"{job.name}-{i}", draw_sentence(rng, job.split), "sentence", voice, speed,
               group=job.name, position=i)
        for i in range(3 + job.index % 3)
    ]  # fmt: skip


def _sound_clip(rng: np.random.Generator, job: Job, name: str, event: str, seconds: float) -> RenderedClip:
    wave = _recorded(rng, sound(event, rng, seconds) * 10 ** (rng.uniform(-12, -2) / 20))
    clip = Clip(
        id=name, path=f"audio/{name}.flac", kind="sound", split=job.split, caption=sound_caption(event, rng),
        labels={"class": event}, licence=_LICENCE, source="uniaudio starter",
    )  # fmt: skip
    return RenderedClip(clip, wave)


def _sound(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    # every class equally often; held-out clips too
    return [_sound_clip(rng, job, job.name, CLASSES[job.index % len(CLASSES)], rng.uniform(1.5, 3))]


def _music_clip(
    rng: np.random.Generator,
    job: Job,
    name: str,
    melody: Melody,
    instrument: str,
    wave: np.ndarray,
    group: str = "",
    position: int = 0,
) -> RenderedClip:
    labels = {"instrument": instrument, **melody.labels}
    clip = Clip(
        id=name, path=f"audio/{name}.flac", kind="music", split=job.split, caption=music_caption(labels, rng),
        labels=labels, licence=_LICENCE, source="uniaudio starter", group=group, position=position,
    )  # fmt: skip
    return RenderedClip(clip, wave)


def _music(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    melody = draw_melody(rng, job.split, rng.uniform(2, 4))
    instrument = INSTRUMENTS[job.index % len(INSTRUMENTS)]
    wave = _recorded(rng, play(melody, instrument, rng) * 10 ** (rng.uniform(-10, -2) / 20))
    return [_music_clip(rng, job, job.name, melody, instrument, wave)]


def _suite(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """A long recording: one melody of about ten seconds, cut at beats into three to five clips."""
    parts = 3 + job.index % 3
    melody = draw_melody(rng, job.split, rng.uniform(2.2, 3.2) * parts)
    instrument = INSTRUMENTS[job.index % len(INSTRUMENTS)]
    wave = _recorded(rng, play(melody, instrument, rng) * 10 ** (rng.uniform(-10, -2) / 20))
    beat = 60 / melody.bpm * SAMPLE_RATE
    beats = sum(melody.beats)
    cuts = [round(round(beats * i / parts) * beat) for i in range(parts)] + [len(wave)]
    return [
        _music_clip(rng, job, f"{job.name}-{i}", melody, instrument, wave[cuts[i] : cuts[i + 1]],
                    group=job.name, position=i)
        for i in range(parts)
    ]  # fmt: skip


def _mixture(job: Job, rng: np.random.Generator, size: StarterSize) -> Rendered:
    """Speech over a sound event, 0 to 12 dB louder, with the two clean parts: the mixture is exactly their sum."""
    text, content = _speech_text(rng, job.split)
    voice, speed = _draw_voice(rng, job, size), choose(rng, tuple(SPEED_BANDS))
    spoken, speech, phones = _utter(rng, job, f"{job.name}-speech", text, content, voice, speed)
    if len(speech) < SAMPLE_RATE:  # long enough for every class of sound to happen
        speech = np.pad(speech, (0, SAMPLE_RATE - len(speech)))
    event = CLASSES[job.index % len(CLASSES)]
    heard, noise, _ = _sound_clip(rng, job, f"{job.name}-sound", event, len(speech) / SAMPLE_RATE)
    noise = noise[: len(speech)]
    snr = float(rng.uniform(0, 12))
    noise = noise * np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr / 20)
    scale = min(1.0, 0.95 / float(np.abs(speech + noise).max()), 0.95 / float(np.abs(noise).max()))
    speech, noise = speech * scale, noise * scale
    both = Clip(
        id=job.name, path=f"audio/{job.name}.flac", kind="mixture", split=job.split, text=text,
        caption=f"{spoken.caption}, and {heard.caption} in the background", speaker=voice.speaker,
        labels=spoken.labels | heard.labels | {"snr_db": f"{snr:.1f}"}, parts=(spoken.id, heard.id),
        licence=_LICENCE, source=spoken.source,
    )  # fmt: skip
    return [RenderedClip(spoken, speech, phones), RenderedClip(heard, noise), RenderedClip(both, speech + noise)]


_RENDERERS = {
    "speech": _speech, "same": _same, "reading": _reading, "sound": _sound, "music": _music, "suite": _suite,
    "mixture": _mixture,
}  # fmt: skip


def _recorded(rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    """The wave over a recorder's faint noise, scaled down where it would clip: float32."""
    wave = wave + 10 ** (rng.uniform(-75, -58) / 20) * rng.standard_normal(len(wave))
    return (wave * min(1.0, 0.95 / float(np.abs(wave).max()))).astype(np.float32)
