"""The session: a conversation that is one auditory sentence, grown a turn at a time."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, get_type_hints

from auditory_sentences.builders.tasks import Request, in_vocabulary
from auditory_sentences.sentence import AuditorySentence, Segment
from cli.chat import quoting
from cli.results import Result
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.files import new_folder
from codec.io.terminal import one_line, shown
from codec.tokens import AudioTokens
from lm.generation.settings import GenerationSettings
from uniaudio.completion import Completion
from uniaudio.model import UniAudio
from uniaudio.recordings import is_silent
from uniaudio.requests import MAX_SECONDS, MAX_TEXT_ROWS, composition_task, description_task, speech_task

# A name with one of these endings in `/shot` is a file; anything else is words.
SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64", ".m4a")


@dataclass(frozen=True)
class Settings:
    """What `/set` changes. A session begins with what its model's generation_config.json says of sampling."""

    temperature: numbers.Temperature = 0.9  # of speech; 0 takes the likeliest, as text always does
    music_temperature: numbers.Temperature = 0.9  # of music and sounds
    top_k: numbers.Count = 50  # only the k likeliest ids of audio are drawn from
    guidance: numbers.Guidance = 1.0  # how strongly descriptive tokens follow what is asked; 1 is off
    # longest answer, in rows: 17.5 are a second of sound
    max_rows: Annotated[int, numbers.Range(8, 100_000)] = MAX_TEXT_ROWS
    max_seconds: numbers.Length = MAX_SECONDS  # longest sound
    steps: Annotated[int, numbers.Range(0, 1000)] = 0  # of the flow decoder; 0: as many as it was made for
    seed: numbers.Seed = 0  # of the next answer; grows by one with every turn
    prompt: str = ""  # instruction in place of the model's own for a task; empty: its own
    voice: str = ""  # description of the voice that /say uses; empty leaves it to the model
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


@dataclass(frozen=True)
class Turn:
    """What one line added: its segments, the model's answer last, and what the person typed."""

    # as it was typed
    line: str
    # what was asked and what came
    segments: tuple[Segment, ...]
    # sounds that came
    files: tuple[Path, ...] = ()


class Session:
    """A conversation with a model. All turns together are one auditory sentence."""

    def __init__(self, model: UniAudio, folder: Path, seed: int = 0) -> None:
        self.model, self.folder = model, folder
        self.settings = Settings.of_model(model, seed)
        self.turns: list[Turn] = []

    @property
    def sentence(self) -> AuditorySentence:
        """The whole session."""
        return AuditorySentence(tuple(segment for turn in self.turns for segment in turn.segments), "session")

    @classmethod
    def commands(cls) -> dict[str, Callable]:
        """'/name' -> method; the first line of its docstring is its help."""
        return {f"/{name.removeprefix('do_')}": getattr(cls, name) for name in dir(cls) if name.startswith("do_")}

    def respond(self, line: str) -> Iterator[str]:
        """Carry out one line and yield what to show. A line that fails raises UserError and changes nothing."""
        if not line.startswith("/"):
            yield self._go_on(line, line)
            return
        name, *rest = line.split(maxsplit=1)
        if name not in self.commands():
            raise UserError(f"no command is called {shown(name)}; /help lists them")
        yield from self.commands()[name](self, rest[0].strip() if rest else "")

    # ---- talking

    def do_text(self, rest: str) -> Iterator[str]:
        """/text WORDS        say something; the model continues in text (words without a command do the same)"""
        yield self._go_on(rest, _need(rest, "/text WORDS"))

    def do_say(self, rest: str) -> Iterator[str]:
        """/say WORDS         the model speaks the words (in the voice that '/set voice ...' describes)"""
        text = _need(rest, "/say WORDS")
        yield self._answer(f"/say {rest}", self._request(*speech_task(text, self.settings.voice)))

    def do_music(self, rest: str) -> Iterator[str]:
        """/music DESCRIPTION the model plays, for example: /music a slow piano melody in C major"""
        caption = _need(rest, "/music DESCRIPTION")
        yield self._answer(f"/music {rest}", self._request(*composition_task(caption)), speech=False)

    def do_sound(self, rest: str) -> Iterator[str]:
        """/sound DESCRIPTION the model makes a sound, for example: /sound a dog barks"""
        caption = _need(rest, "/sound DESCRIPTION")
        yield self._answer(f"/sound {rest}", self._request(*composition_task(caption, sound=True)), speech=False)

    def do_listen(self, rest: str) -> Iterator[str]:
        """/listen FILE       the model writes down what is said"""
        yield self._about(_file(rest, "/listen FILE"), f"/listen {rest}", "asr")

    def do_describe(self, rest: str) -> Iterator[str]:
        """/describe FILE     the model describes the sound"""
        yield self._about(_file(rest, "/describe FILE"), f"/describe {rest}", description_task())

    def do_ask(self, rest: str) -> Iterator[str]:
        """/ask FILE QUESTION a question about a recording; a name with spaces stands in quotation marks"""
        name, question = quoting.first(rest)
        if not question:
            raise UserError("write /ask FILE QUESTION")
        audio = self.model.read_recording(_file(name, "/ask FILE QUESTION", parsed=True))
        asked = self._request("audio_qa", {"audio": audio, "question": quoting.one(question)})
        yield self._answer(f"/ask {rest}", asked)

    def do_shot(self, rest: str) -> Iterator[str]:
        """/shot IN => OUT    show an example (each a file or words); '/shot IN =>' then asks for the OUT of a new IN"""
        both = quoting.sides(rest)
        if both is None or not both[0]:
            raise UserError("write /shot INPUT => OUTPUT, each a sound file or words; leave OUTPUT empty to ask")
        left, right = both
        given = self._file_or_words(left)
        if right:
            example = Request(AuditorySentence((given, self._file_or_words(right))), "text")
            segments = in_vocabulary(example, self.model.text_tokenizer).sentence.segments
            self.turns.append(Turn(f"/shot {rest}", segments))
            yield f"(example {len(self._shots())})"
            return
        shots = self._shots()
        if not shots:
            raise UserError("there is no example to go by yet; show one with /shot INPUT => OUTPUT")
        role = shots[-1].segments[-1].role
        segments = tuple(segment for turn in shots for segment in turn.segments)
        asked = Request(AuditorySentence((*segments, given)), role)
        yield self._answer(f"/shot {rest}", asked, kept=1)

    # ---- the session itself

    def do_set(self, rest: str) -> Iterator[str]:
        """/set NAME VALUE    change a setting; /set alone shows them all"""
        name = ""
        if rest:
            name, value = quoting.first(rest)
            if not value:
                raise UserError('write /set NAME VALUE; "" is an empty value')
            self.settings = self.settings.changed(name, quoting.one(value))
        for f in fields(self.settings):
            if name in ("", f.name):
                yield f"{f.name} {getattr(self.settings, f.name)}"

    def do_tokens(self, _: str) -> Iterator[str]:
        """/tokens            the token ids of the last sound"""
        sounds = [s.content for s in self.sentence.segments if not s.is_text]
        if not sounds:
            raise UserError("no sound in this session yet; make one with /say, or read one with /listen FILE")
        tokens = sounds[-1]
        yield f"{tokens.num_samples / self.model.codec.sample_rate:.2f} s, tokenizer {tokens.fingerprint}"
        for stream in self.model.codec.streams:
            ids = tokens[stream.name]
            yield f"{stream.name}, {stream.rate:g} Hz: {ids.shape[1]} frames of {stream.codebooks}"
            width = len(str(int(ids.max())))
            for codebook, row in enumerate(ids.tolist()):
                yield f"  {codebook}  " + " ".join(f"{i:{width}d}" for i in row)

    def do_history(self, _: str) -> Iterator[str]:
        """/history           what was said so far"""
        for number, turn in enumerate(self.turns, 1):
            said = turn.segments[-1]
            yield f"{number}  {turn.line}"
            yield f"   {said.content if said.is_text else ', '.join(map(str, turn.files)) or '(sound)'}"

    def do_undo(self, _: str) -> Iterator[str]:
        """/undo              forget the last turn"""
        if not self.turns:
            raise UserError("nothing to undo: the session is empty")
        yield f"(forgot: {self.turns.pop().line})"

    def do_new(self, _: str) -> Iterator[str]:
        """/new               forget every turn"""
        self.turns.clear()
        yield "(a new session)"

    def do_save(self, rest: str) -> Iterator[str]:
        """/save FOLDER       write the session to a new folder: session.json, token files; sound is there already"""
        place = _file(rest, "/save FOLDER")
        turns = []
        with new_folder(place) as folder:
            for number, turn in enumerate(self.turns, 1):
                segments = []
                for at, segment in enumerate(turn.segments, 1):
                    content = segment.content
                    if isinstance(content, AudioTokens):
                        file = f"{number:03d}-{at}-{segment.role}.safetensors"
                        content.save(folder / file)
                        content = {"tokens": file}
                    segments.append({"role": segment.role, "content": content})
                turns.append({"line": turn.line, "segments": segments, "files": [str(f.resolve()) for f in turn.files]})
            document = {"settings": {f.name: getattr(self.settings, f.name) for f in fields(Settings)}, "turns": turns}
            text = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
            (folder / "session.json").write_bytes(text + b"\n")
        yield f"(saved {len(turns)} turns to {one_line(place)})"

    def do_help(self, _: str) -> Iterator[str]:
        """/help              this list"""
        for command in self.commands().values():
            yield command.__doc__.strip().splitlines()[0]
        yield "/quit              end the session"

    # ---- how an answer comes about

    def _go_on(self, line: str, text: str) -> str:
        return self._answer(line, Request(AuditorySentence((Segment("text", text),)), "text"))

    def _about(self, file: Path, line: str, task: str) -> str:
        """The answer to a task about one recording; nothing where it is silent."""
        if is_silent(file):
            warnings.warn(f"{file}: is silent, so nothing was asked", stacklevel=2)
            return "(silence)"
        return self._answer(line, self._request(task, {"audio": self.model.read_recording(file)}))

    def _request(self, task: str, contents: dict[str, str | AudioTokens]) -> Request:
        return self.model.request(task, self.settings.prompt or None, **contents)

    def _answer(self, line: str, asked: Request, kept: int | None = None, speech: bool = True) -> str:
        """Ask the model, keep the turn, and return the line that shows the answer.

        Args:
            kept: How many of the last segments the turn adds before the answer, where that is less than what was asked
                (the examples are there).
            speech: Whether sound that answers is speech, which is sampled at another temperature than music.
        """
        asked = in_vocabulary(asked, self.model.text_tokenizer)
        sentence, role = asked.sentence, asked.role
        added = sentence.segments if kept is None else sentence.segments[-kept:]
        if kept is None:
            sentence = self._with_memory(added)
        settings = self.settings
        generation = GenerationSettings(max_rows=settings.max_rows, top_k=1)
        if role == "audio":
            generation = self.model.settings_of(
                "tts" if speech else "music_generation",
                max_rows=settings.max_rows,
                temperature=settings.temperature if speech else settings.music_temperature,
                top_k=settings.top_k,
                guidance=settings.guidance,
                max_seconds=settings.max_seconds,
            )
        completion = self.model.complete([sentence], role, generation, [settings.seed])[0]
        if completion.segment is None:
            raise UserError(f"the model gave no {role} ({completion.reason}); try another /set seed")
        files, text = self._present(line, completion)
        self.turns.append(Turn(line, (*added, completion.segment), files))
        self.settings = settings.after_a_turn()
        return text

    def _present(self, line: str, completion: Completion) -> tuple[tuple[Path, ...], str]:
        cut = "" if completion.reason == "end" else f" ({completion.reason})"
        if completion.segment.is_text:
            return (), f"{completion.line or '(silence)'}{cut}"
        name = line.split()[0].strip("/")
        number = 1
        while os.path.lexists(path := self.folder / f"{name}-{number:03d}.wav"):
            number += 1
        tokens = completion.segment.content
        waveform = self.model.waveform(tokens, steps=self.settings.steps or None, seed=self.settings.seed)
        rate = self.model.codec.sample_rate
        Result(path).write_sound(waveform, rate, self.model.provenance(name, self.settings.seed))
        return (path,), f"{one_line(path)}  {tokens.num_samples / rate:.1f} s{cut}"

    def _with_memory(self, asked: tuple[Segment, ...]) -> AuditorySentence:
        """What is asked, after as many of the latest turns as `memory` allows and leave room for the answer."""
        sentence = AuditorySentence(asked, "session")
        for turn in reversed(self.turns[-self.settings.memory :] if self.settings.memory else []):
            longer = AuditorySentence((*turn.segments, *sentence.segments), "session")
            if self.model.room_after(longer) < self.settings.max_rows:
                break
            sentence = longer
        return sentence

    def _shots(self) -> list[Turn]:
        """The examples since the last turn that was none, and answers to examples count as examples."""
        shots: list[Turn] = []
        for turn in reversed(self.turns):
            if not turn.line.startswith("/shot"):
                break
            shots.insert(0, turn)
        return shots

    def _file_or_words(self, text: str) -> Segment:
        name = quoting.one(text)
        if Path(name).suffix.lower() in SOUND_ENDINGS:
            return Segment("audio", self.model.read_recording(_file(name, "/shot FILE => OUTPUT", parsed=True)))
        return Segment("text", name)


def _need(rest: str, usage: str) -> str:
    """The words of a command, without quotation marks around all of them. Raises UserError where there are none."""
    # Within the words a quotation mark is one of the words.
    quoted = rest[:1] in ("'", '"')
    text = quoting.one(rest) if quoted else rest
    if not text.strip():
        raise UserError(f"write {usage}")
    return text


def _file(rest: str, usage: str, parsed: bool = False) -> Path:
    """The file or folder that a command names. Raises UserError where it names none."""
    name = rest if parsed else quoting.one(rest)
    if not name:
        raise UserError(f"write {usage}")
    if "\0" in name:
        raise UserError(f"{shown(name)}: not a name that a file can have")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:  # ~ of nobody
        raise UserError(f"{shown(name)}: there is no such home folder; write the whole path") from error
