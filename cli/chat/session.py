"""The session: a conversation that is one auditory sentence, grown a turn at a time."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from auditory_sentences.builders.tasks import TASKS, Request, in_vocabulary
from auditory_sentences.sentence import AuditorySentence, Segment
from cli.chat import quoting
from cli.chat.settings import Settings
from cli.chat.task_commands import VERB_COMMANDS, task_list
from cli.results import Result
from cli.transform import CONSENT, clone
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.files import new_folder
from codec.io.terminal import one_line, shown
from codec.tokens import AudioTokens
from uniaudio.completion import Completion
from uniaudio.contents import read_voice
from uniaudio.model import UniAudio
from uniaudio.recordings import is_silent
from uniaudio.requests import composition_task, description_task, speech_task

ALIASES = {"/shot": "/example"}  # names that commands had before
# A name with one of these endings in `/example` is a file; anything else is words.
SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".mp3", ".opus", ".aif", ".aiff", ".au", ".caf", ".w64", ".m4a")


@dataclass(frozen=True)
class Turn:
    """What one line added: its segments, the model's answer last, and what the person typed."""

    # as it was typed
    line: str
    # what was asked and what came
    segments: tuple[Segment, ...]
    # sounds that came
    files: tuple[Path, ...] = ()
    # one of the examples that `/example` shows, or an answer after them
    is_example: bool = False


class Voice(NamedTuple):
    """Whose voice `/say` and its like speak in."""

    # recording of it
    file: Path
    # its first seconds
    tokens: AudioTokens


class Session:
    """A conversation with a model. All turns together are one auditory sentence."""

    def __init__(self, model: UniAudio, folder: Path, seed: int = 0) -> None:
        self.model, self.folder = model, folder
        self.settings = Settings.of_model(model, seed)
        self.turns: list[Turn] = []
        self.voice: Voice | None = None
        self._knows_of_consent = False

    @property
    def sentence(self) -> AuditorySentence:
        """The whole session."""
        return AuditorySentence(tuple(segment for turn in self.turns for segment in turn.segments), "session")

    @classmethod
    def commands(cls) -> dict[str, Callable]:
        """'/name' -> what carries it out, by name; the first line of its docstring is its help."""
        own = {f"/{name.removeprefix('do_')}": getattr(cls, name) for name in dir(cls) if name.startswith("do_")}
        return dict(sorted((own | VERB_COMMANDS).items()))

    def respond(self, line: str) -> Iterator[str]:
        """Carry out one line and yield what to show. A line that fails raises UserError and changes nothing."""
        if not line.startswith("/"):
            yield from self._go_on(line, line)
            return
        name, *rest = line.split(maxsplit=1)
        name = ALIASES.get(name, name)
        if name not in self.commands():
            raise UserError(f"no command is called {shown(name)}; /help lists them")
        yield from self.commands()[name](self, rest[0].strip() if rest else "")

    # ---- talking

    def do_text(self, rest: str) -> Iterator[str]:
        """/text WORDS              say something; the model continues in text (words without a command do the same)"""
        yield from self._go_on(rest, quoting.need(rest, "/text WORDS"))

    def do_say(self, rest: str) -> Iterator[str]:
        """/say WORDS               the model speaks the words, in the voice of /voice or of '/set voice ...'"""
        text, style = quoting.need(rest, "/say WORDS"), self.settings.voice
        task, contents = clone(text, self.voice.file, style) if self.voice else speech_task(text, style)
        yield from self.perform(f"/say {rest}", task, contents)

    def do_music(self, rest: str) -> Iterator[str]:
        """/music DESCRIPTION       the model plays, for example: /music a slow piano melody in C major"""
        caption = quoting.need(rest, "/music DESCRIPTION")
        yield from self.perform(f"/music {rest}", *composition_task(caption))

    def do_sound(self, rest: str) -> Iterator[str]:
        """/sound DESCRIPTION       the model makes a sound, for example: /sound a dog barks"""
        caption = quoting.need(rest, "/sound DESCRIPTION")
        yield from self.perform(f"/sound {rest}", *composition_task(caption, sound=True))

    def do_listen(self, rest: str) -> Iterator[str]:
        """/listen FILE             the model writes down what is said"""
        yield from self.perform(f"/listen {rest}", "asr", {"audio": quoting.file(rest, "/listen FILE")})

    def do_describe(self, rest: str) -> Iterator[str]:
        """/describe FILE [--music] the model describes the sound, or the music"""
        name, music = quoting.flag(rest, "--music")
        file = quoting.file(name, "/describe FILE [--music]")
        yield from self.perform(f"/describe {rest}", description_task(music), {"audio": file})

    def do_ask(self, rest: str) -> Iterator[str]:
        """/ask FILE QUESTION       a question about a recording; a name with spaces stands in quotation marks"""
        file, question = quoting.file_and_words(rest, "/ask FILE QUESTION")
        yield from self.perform(f"/ask {rest}", "audio_qa", {"audio": file, "question": question})

    def do_voice(self, rest: str) -> Iterator[str]:
        """/voice FILE              /say, /convert and /extract use the voice of a recording; '/voice none' drops it"""
        if rest == "none":
            self.voice = None
        elif rest:
            file = quoting.file(rest, "/voice FILE")
            if is_silent(file):
                raise UserError(f"{file}: is silent; give a recording of a voice")
            self.voice = Voice(file, read_voice(self.model, file))
            if not self._knows_of_consent:
                warnings.warn(CONSENT, stacklevel=2)
                self._knows_of_consent = True
        yield f"(voice: {one_line(self.voice.file)})" if self.voice else "(no voice; /voice FILE gives one)"

    def do_example(self, rest: str) -> Iterator[str]:
        """/example IN => OUT       an example, each a file or words; '/example IN =>' asks for the OUT of a new IN"""
        both = quoting.sides(rest)
        if both is None or not both[0]:
            raise UserError("write /example IN => OUT, each a sound file or words; leave OUT empty to ask")
        line, (left, right) = f"/example {rest}", both
        given = self._file_or_words(left)
        if right:
            example = Request(AuditorySentence((given, self._file_or_words(right))), "text")
            segments = in_vocabulary(example, self.model.text_tokenizer).sentence.segments
            self.turns.append(Turn(line, segments, is_example=True))
            yield f"(example {len(self._examples())})"
            return
        examples = self._examples()
        if not examples:
            raise UserError("there is no example to go by yet; show one with /example IN => OUT")
        role = examples[-1].segments[-1].role
        prompt = (Segment("prompt", self.settings.prompt),) if self.settings.prompt else ()
        shown_before = tuple(segment for turn in examples for segment in turn.segments)
        asked = Request(AuditorySentence((*prompt, *shown_before, given)), role)
        yield from self._answer(line, asked, after_examples=True)

    def do_tasks(self, _: str) -> Iterator[str]:
        """/tasks                   what the model was trained for, what it was not, and the command for each"""
        yield from task_list(self.model.trained_tasks)

    # ---- the session itself

    def do_set(self, rest: str) -> Iterator[str]:
        """/set NAME VALUE          change a setting; /set alone shows them all"""
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
        """/tokens                  the token ids of the last sound"""
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
        """/history                 what was said so far"""
        for number, turn in enumerate(self.turns, 1):
            said = turn.segments[-1]
            yield f"{number}  {turn.line}"
            yield f"   {said.content if said.is_text else ', '.join(map(str, turn.files)) or '(sound)'}"

    def do_undo(self, _: str) -> Iterator[str]:
        """/undo                    forget the last turn"""
        if not self.turns:
            raise UserError("nothing to undo: the session is empty")
        yield f"(forgot: {self.turns.pop().line})"

    def do_new(self, _: str) -> Iterator[str]:
        """/new                     forget every turn"""
        self.turns.clear()
        yield "(a new session)"

    def do_save(self, rest: str) -> Iterator[str]:
        """/save FOLDER             write the session to a new folder: session.json and token files"""
        place = quoting.file(rest, "/save FOLDER")
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
            voice = str(self.voice.file.resolve()) if self.voice else None
            settings = {f.name: getattr(self.settings, f.name) for f in fields(Settings)}
            document = {"settings": settings, "voice": voice, "turns": turns}
            text = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
            (folder / "session.json").write_bytes(text + b"\n")
        yield f"(saved {len(turns)} turns to {one_line(place)})"

    def do_help(self, _: str) -> Iterator[str]:
        """/help                    this list"""
        for command in self.commands().values():
            yield command.__doc__.strip().splitlines()[0]
        yield "/quit                    end the session"

    # ---- how an answer comes about

    def need_voice(self) -> Voice:
        """The voice of `/voice`. Raises UserError where none was given."""
        if self.voice is None:
            raise UserError("there is no voice yet; give a recording of it with /voice FILE")
        return self.voice

    def perform(self, line: str, task: str, contents: Mapping[str, str | Path], several: bool = False) -> Iterator[str]:
        """Ask for a task; a file "voice" is that of `/voice`. About a recording that is silent nothing is asked.

        Args:
            line: As it was typed.
            task: Its name.
            contents: What it is given, by name.
            several: Whether as many answers are asked for as the setting `parts` says.
        """
        given: dict[str, str | AudioTokens] = {}
        for name, content in contents.items():
            if name == "voice":
                given[name] = self.need_voice().tokens
            elif isinstance(content, Path):
                if is_silent(content):
                    warnings.warn(f"{content}: is silent, so nothing was asked", stacklevel=2)
                    yield "(silence)"
                    return
                given[name] = self.model.read_recording(content)
            else:
                given[name] = content
        asked = self.model.request(task, self.settings.prompt or None, **given)
        yield from self._answer(line, asked, self.settings.parts if several else 1)

    def _go_on(self, line: str, text: str) -> Iterator[str]:
        return self._answer(line, Request(AuditorySentence((Segment("text", text),)), "text"))

    def _answer(self, line: str, asked: Request, count: int = 1, after_examples: bool = False) -> Iterator[str]:
        """Ask the model, keep the turn, and yield the lines that show the answers.

        Args:
            count: Of the answers, one after the other.
            after_examples: Of what is asked, the turn adds the last segment alone: the examples are there.
        """
        task = TASKS.get(asked.sentence.name)
        asked = in_vocabulary(asked, self.model.text_tokenizer)
        sentence, role = asked.sentence, asked.role
        added = sentence.segments[-1:] if after_examples else sentence.segments
        if not after_examples:
            sentence = self._with_memory(added, sentence.name)
        settings = self.settings
        answers: list[Completion] = []
        for number in range(count):
            seed = (settings.seed + number) % (numbers.LARGEST + 1)
            completion = self.model.complete([sentence], role, settings.generation(self.model, task, role), [seed])[0]
            if completion.segment is None:
                raise UserError(f"the model gave no {role} ({completion.reason}); try another /set seed")
            answers.append(completion)
            sentence = sentence.then(completion.segment)
        shown_answers = [self._present(line, answer) for answer in answers]
        files = tuple(file for file, _ in shown_answers if file)
        segments = (*added, *(answer.segment for answer in answers if answer.segment))
        self.turns.append(Turn(line, segments, files, after_examples))
        self.settings = settings.after_a_turn()
        yield from (text for _, text in shown_answers)

    def _present(self, line: str, completion: Completion) -> tuple[Path | None, str]:
        """The file of an answer, where it is sound, and the line that shows it."""
        cut = "" if completion.reason == "end" else f" ({completion.reason})"
        if completion.segment.is_text:
            return None, f"{completion.line or '(silence)'}{cut}"
        name = line.split()[0].strip("/")
        number = 1
        while os.path.lexists(path := self.folder / f"{name}-{number:03d}.wav"):
            number += 1
        tokens = completion.segment.content
        waveform = self.model.waveform(tokens, steps=self.settings.steps or None, seed=self.settings.seed)
        rate = self.model.codec.sample_rate
        Result(path).write_sound(waveform, rate, self.model.provenance(name, self.settings.seed))
        return path, f"{one_line(path)}  {tokens.num_samples / rate:.1f} s{cut}"

    def _with_memory(self, asked: tuple[Segment, ...], task: str) -> AuditorySentence:
        """What is asked, after as many of the latest turns as `memory` allows and leave room for the answer."""
        sentence = AuditorySentence(asked, task)
        for turn in reversed(self.turns[-self.settings.memory :] if self.settings.memory else []):
            longer = AuditorySentence((*turn.segments, *sentence.segments), task)
            if self.model.room_after(longer) < self.settings.max_rows:
                break
            sentence = longer
        return sentence

    def _examples(self) -> list[Turn]:
        """The examples since the last turn that was none, and answers to examples count as examples."""
        return list(takewhile(lambda turn: turn.is_example, reversed(self.turns)))[::-1]

    def _file_or_words(self, text: str) -> Segment:
        name = quoting.one(text)
        if Path(name).suffix.lower() in SOUND_ENDINGS:
            file = quoting.file(name, "/example FILE => OUT", parsed=True)
            return Segment("audio", self.model.read_recording(file))
        return Segment("text", name)
