"""What `/set` changes in a session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, get_type_hints

from auditory_sentences.builders.tasks import Task, reading_tasks
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.terminal import shown
from lm.generation.settings import Candidates, GenerationSettings
from uniaudio.model import UniAudio
from uniaudio.requests import MAX_SECONDS, MAX_TEXT_ROWS


@dataclass(frozen=True)
class Settings:
    """What `/set` changes. A session begins with what its model's generation_config.json says of sampling."""

    temperature: numbers.Temperature = 0.9  # of speech; 0 takes the likeliest, as text always does
    music_temperature: numbers.Temperature = 0.9  # of music and sounds
    top_k: numbers.Count = 50  # only the k likeliest ids of audio are drawn from
    guidance: numbers.Guidance = 1.0  # how strongly descriptive tokens follow what is asked; 1 is off
    # sounds made of what is asked in words, of which the model keeps the one that it understands best
    candidates: Candidates = 1
    # longest answer, in rows: 17.5 are a second of sound
    max_rows: Annotated[int, numbers.Range(8, 100_000)] = MAX_TEXT_ROWS
    max_seconds: numbers.Length = MAX_SECONDS  # longest sound
    steps: Annotated[int, numbers.Range(0, 1000)] = 0  # of the flow decoder; 0: as many as it was made for
    seed: numbers.Seed = 0  # of the next answer; grows by one with every turn
    prompt: str = ""  # instruction in place of the model's own for a task; empty: its own
    # description of the voice that /say uses; empty leaves it to the model, or to the recording of /voice
    voice: str = ""
    parts: numbers.Count = 2  # that /separate takes a mixture apart into
    memory: numbers.Index = 1  # how many earlier turns the model sees; the starter gets confused by more

    @classmethod
    def of_model(cls, model: UniAudio, seed: int) -> Settings:
        """Those of a new session."""
        speech, music = model.settings_of("tts"), model.settings_of("music_generation")
        return cls(
            temperature=speech.temperature,
            music_temperature=music.temperature,
            top_k=speech.top_k or numbers.LARGEST,
            guidance=speech.guidance,
            candidates=speech.candidates,
            max_seconds=speech.max_seconds or MAX_SECONDS,
            seed=seed,
        )

    def changed(self, name: str, value: str) -> Settings:
        """The settings with one value set from text. Raises UserError naming the setting and what it wants."""
        kinds = get_type_hints(type(self), include_extras=True)
        if name not in kinds:
            raise UserError(f"no setting is called {shown(name)}; there are {', '.join(kinds)}")
        if kinds[name] is str:
            return replace(self, **{name: value})
        try:
            return replace(self, **{name: numbers.read_number(value, kinds[name])})
        except ValueError as error:
            raise UserError(f"{name} {error}, not {shown(value)}") from None

    def after_a_turn(self) -> Settings:
        """The settings of the next turn: another seed."""
        return replace(self, seed=(self.seed + 1) % (numbers.LARGEST + 1))

    def generation(self, model: UniAudio, task: Task | None, role: str) -> GenerationSettings:
        """How the answer to a task is generated.

        Args:
            model: That answers.
            task: None where it is none of the table's.
            role: Of the answer: text takes the likeliest words; music and sounds have a temperature of their own.
        """
        if role != "audio":
            return GenerationSettings(max_rows=self.max_rows, top_k=1)
        told = task is not None and bool(reading_tasks(task))
        is_music = task is not None and bool(task.kinds & {"sound", "music"}) and "speech" not in task.kinds
        return model.settings_of(
            "music_generation" if is_music else "tts",
            max_rows=self.max_rows,
            temperature=self.music_temperature if is_music else self.temperature,
            top_k=self.top_k,
            guidance=self.guidance,
            candidates=self.candidates if told else 1,
            max_seconds=self.max_seconds,
        )
