"""Clips of the starter corpus being made: one utterance, one sound, one piece of music."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from auditory_sentences.corpora.clip import Clip, Split
from auditory_sentences.corpora.phones import Phone, Phones
from auditory_sentences.starter.music import Melody, music_caption
from auditory_sentences.starter.randomness import choose
from auditory_sentences.starter.sounds import sound, sound_caption
from auditory_sentences.starter.texts import draw_digits, draw_sentence, style_caption
from auditory_sentences.starter.voices import SAMPLE_RATE, SPEED_BANDS, Voice, speak, voices
from codec.io.errors import UserError

LICENCE = "CC0-1.0"


class RenderedClip(NamedTuple):
    """A clip with what is heard."""

    # what is known of it
    clip: Clip
    # (n,) float32 at 24 kHz
    wave: np.ndarray
    # of speech alone, and of no mixture: when each of its phones is spoken
    phones: Phones = ()


Rendered = list[RenderedClip]


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
    # training groups of each kind of related clips: speech edited, in rooms and in noise, two speakers or instruments
    # at once, questions with answers, songs; a fifth of held_out in dev, and again in test
    related: int = 0
    # speakers in train
    voices: int = 600
    # speakers in dev, and again in test
    held_out_voices: int = 24

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            low = 1 if "voices" in name else 0
            if type(value) is not int or not low <= value <= 10**6:
                raise UserError(f"starter corpus: {name} must be a whole number from {low} to a million, not {value!r}")

    @property
    def values(self) -> dict[str, int]:
        """What is recorded of it; a number that a corpus had no clips of before there was such a number is left out."""
        return {name: value for name, value in asdict(self).items() if value or name != "related"}


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


def speech_text(rng: np.random.Generator, split: str) -> tuple[str, str]:
    """(text, content label)"""
    return (draw_digits(rng, split), "digits") if rng.random() < 0.65 else (draw_sentence(rng, split), "sentence")


def draw_voice(rng: np.random.Generator, job: Job, size: StarterSize) -> Voice:
    return choose(rng, voices(job.split, size.voices if job.split == "train" else size.held_out_voices))


def utter(
    rng: np.random.Generator,
    job: Job,
    name: str,
    text: str,
    content: str,
    voice: Voice,
    speed: str,
    group: str = "",
    position: int = 0,
    rate: float | None = None,
    level: float | None = None,
) -> RenderedClip:
    """One speech clip: espeak's utterance with short silences around it, over faint noise.

    Args:
        rng: Draws what is not given.
        job: Whose clip it is.
        name: Id of the clip.
        text: What is said.
        content: Label of it.
        voice: Who says it.
        speed: Label of how fast.
        group: As in Clip.
        position: As in Clip.
        rate: Words per minute.
        level: Root mean square, in dB below full scale.
    """
    wave, phones = speak(text, voice, rng.uniform(*SPEED_BANDS[speed]) if rate is None else rate)
    silence = [round(rng.uniform(0.04, 0.12) * SAMPLE_RATE) for _ in range(2)]
    wave = np.pad(wave, silence)
    begins = silence[0] / SAMPLE_RATE
    rms = np.sqrt(np.mean(wave**2))
    wave = wave * (10 ** ((rng.uniform(-26, -19) if level is None else level) / 20) / rms)
    labels = voice.labels | {"speed": speed, "content": content}
    clip = Clip(
        id=name, path=f"audio/{name}.flac", kind="speech", split=job.split, text=text,
        caption=style_caption(labels, rng), speaker=voice.speaker, labels=labels, licence=LICENCE,
        source=f"uniaudio starter, espeak-ng voice {voice.language}+{voice.variant}",
        group=group, position=position,
    )  # fmt: skip
    times = tuple(Phone(begins + phone.start, begins + phone.end, phone.name) for phone in phones)
    return RenderedClip(clip, recorded(rng, wave), times)


def sound_clip(rng: np.random.Generator, job: Job, name: str, event: str, seconds: float) -> RenderedClip:
    wave = recorded(rng, sound(event, rng, seconds) * 10 ** (rng.uniform(-12, -2) / 20))
    clip = Clip(
        id=name, path=f"audio/{name}.flac", kind="sound", split=job.split, caption=sound_caption(event, rng),
        labels={"class": event}, licence=LICENCE, source="uniaudio starter",
    )  # fmt: skip
    return RenderedClip(clip, wave)


def music_clip(
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
        labels=labels, licence=LICENCE, source="uniaudio starter", group=group, position=position,
    )  # fmt: skip
    return RenderedClip(clip, wave)


def recorded(rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    """The wave over a recorder's faint noise, scaled down where it would clip: float32."""
    wave = wave + 10 ** (rng.uniform(-75, -58) / 20) * rng.standard_normal(len(wave))
    return (wave * min(1.0, 0.95 / float(np.abs(wave).max()))).astype(np.float32)
