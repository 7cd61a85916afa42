"""The session: a conversation that is one auditory sentence, grown a turn at a time."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from auditory_sentences.sentence import AuditorySentence, Segment
from auditory_sentences.tasks import Request
from auditory_sentences.uniaudio import Completion, UniAudio
from codec.audio import write_audio
from codec.errors import UserError
from codec.tokens import AudioTokens
from lm.generation import GenerationSettings


@dataclass(frozen=True)
class Settings:
    """What `/set` changes."""

    temperature: float = 0.2  # of speech; 0 takes the likeliest, as text always does
    music_temperature: float = 0.5  # of music and sounds
    top_k: int = 30
    guidance: float = 2.0  # how strongly descriptive tokens follow what is asked; 1 is off
    max_rows: int = 300  # longest answer, in rows: 17.5 rows are a second of sound
    steps: int = 0  # of the flow decoder; 0: as many as it was made for
    seed: int = 0  # of the next answer; grows by one with every turn
    prompt: str = ""  # instruction in place of the model's own for a task; empty: its own
    voice: str = ""  # description of the voice that /say uses; empty leaves it to the model
    memory: int = 1  # how many earlier turns the model sees; the starter gets confused by more

    def changed(self, name: str, value: str) -> Settings:
        """The settings with one value set from text. Raises UserError naming the setting and what it wants."""
        kinds = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        if name not in kinds:
            raise UserError(f"no setting is called '{name}'; there are {', '.join(kinds)}")
        try:
            number = kinds[name](value)
        except ValueError:
            raise UserError(f"{name} wants a {kinds[name].__name__}, not '{value}'") from None
        lowest = {"temperature": 0, "music_temperature": 0, "top_k": 1, "guidance": 1, "max_rows": 8, "steps": 0}
        lowest |= {"seed": 0, "memory": 0}
        if name in lowest and number < lowest[name]:
            raise UserError(f"{name} must be at least {lowest[name]}, not {value}")
        return replace(self, **{name: number})


@dataclass(frozen=True)
class Turn:
    """What one line added: its segments, the model's answer last, and what the person typed."""

    line: str
    segments: tuple[Segment, ...]
    files: tuple[Path, ...] = ()


class Session:
    """A conversation with a model. All turns together are one auditory sentence."""

    def __init__(self, model: UniAudio, folder: Path, seed: int = 0) -> None:
        self.model, self.folder = model, folder
        self.settings = Settings(seed=seed)
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
            yield from self.do_text(line)
            return
        name, _, rest = line.partition(" ")
        if name not in self.commands():
            raise UserError(f"no command is called '{name}'; /help lists them")
        yield from self.commands()[name](self, rest.strip())

    # ---- talking

    def do_text(self, text: str) -> Iterator[str]:
        """/text WORDS        say something; the model goes on in text (words without a command do the same)"""
        _need(text, "/text WORDS")
        yield self._answer(text, Request(AuditorySentence((Segment("text", text),)), "text"))

    def do_say(self, text: str) -> Iterator[str]:
        """/say WORDS         the model speaks the words (in the voice that '/set voice ...' describes)"""
        _need(text, "/say WORDS")
        if self.settings.voice:
            asked = self._request("instruct_tts", caption=self.settings.voice, text=text)
        else:
            asked = self._request("tts", text=text)
        yield self._answer(f"/say {text}", asked)

    def do_music(self, caption: str) -> Iterator[str]:
        """/music DESCRIPTION the model plays, for example: /music a slow piano melody in C major"""
        _need(caption, "/music DESCRIPTION")
        yield self._answer(f"/music {caption}", self._request("music_generation", caption=caption), speech=False)

    def do_sound(self, caption: str) -> Iterator[str]:
        """/sound DESCRIPTION the model makes a sound, for example: /sound a dog barks"""
        _need(caption, "/sound DESCRIPTION")
        yield self._answer(f"/sound {caption}", self._request("sound_generation", caption=caption), speech=False)

    def do_listen(self, file: str) -> Iterator[str]:
        """/listen FILE       the model writes down what is said"""
        audio = self._tokens(_need(file, "/listen FILE"))
        yield self._answer(f"/listen {file}", self._request("asr", audio=audio))

    def do_describe(self, file: str) -> Iterator[str]:
        """/describe FILE     the model describes the sound"""
        audio = self._tokens(_need(file, "/describe FILE"))
        yield self._answer(f"/describe {file}", self._request("sound_caption", audio=audio))

    def do_ask(self, rest: str) -> Iterator[str]:
        """/ask FILE QUESTION a question about a recording"""
        file, question = _two_parts(rest, "/ask FILE QUESTION")
        asked = self._request("audio_qa", audio=self._tokens(file), question=question)
        yield self._answer(f"/ask {rest}", asked)

    def do_shot(self, rest: str) -> Iterator[str]:
        """/shot IN => OUT    show an example (each a file or words); '/shot IN =>' then asks for the OUT of a new IN"""
        left, arrow, right = (part.strip() for part in rest.partition("=>"))
        if not arrow or not left:
            raise UserError("write /shot INPUT => OUTPUT, each a sound file or words; leave OUTPUT empty to ask")
        given = self._file_or_words(left)
        if right:
            self.turns.append(Turn(f"/shot {rest}", (given, self._file_or_words(right))))
            yield f"(example {len(self._shots())})"
            return
        shots = self._shots()
        if not shots:
            raise UserError("there is no example to go by yet; show one with /shot INPUT => OUTPUT")
        wanted = shots[-1].segments[-1].role
        segments = tuple(segment for turn in shots for segment in turn.segments)
        asked = Request(AuditorySentence((*segments, given)), wanted)
        yield self._answer(f"/shot {rest}", asked, kept=(given,))

    # ---- the session itself

    def do_set(self, rest: str) -> Iterator[str]:
        """/set NAME VALUE    change a setting; /set alone shows them all"""
        if rest:
            name, value = _two_parts(rest, "/set NAME VALUE")
            self.settings = self.settings.changed(name, value)
        for f in fields(self.settings):
            if not rest or f.name == rest.split()[0]:
                yield f"{f.name} {getattr(self.settings, f.name)}"

    def do_tokens(self, _: str) -> Iterator[str]:
        """/tokens            the token ids of the last sound"""
        sounds = [s.content for s in self.sentence.segments if not s.is_text]
        if not sounds:
            raise UserError("no sound in this session yet; make one with /say or hear one with /listen FILE")
        tokens = sounds[-1]
        yield f"{tokens.seconds:.2f} s, tokenizer {tokens.fingerprint}"
        for name, ids in (("descriptive, 5 Hz", tokens.descriptive), ("structural, 12.5 Hz", tokens.structural)):
            yield f"{name}: {ids.shape[1]} frames of 8"
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

    def do_save(self, name: str) -> Iterator[str]:
        """/save FOLDER       write the session: session.json, token files; the sound is there already"""
        folder = Path(_need(name, "/save FOLDER"))
        if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
            raise UserError(f"{folder}: exists already; give a folder that is new or empty")
        folder.mkdir(parents=True, exist_ok=True)
        turns = []
        for number, turn in enumerate(self.turns, 1):
            segments = []
            for place, segment in enumerate(turn.segments, 1):
                content = segment.content
                if isinstance(content, AudioTokens):
                    file = f"{number:03d}-{place}-{segment.role}.safetensors"
                    content.save(folder / file)
                    content = {"tokens": file}
                segments.append({"role": segment.role, "content": content})
            turns.append({"line": turn.line, "segments": segments, "files": [str(f.resolve()) for f in turn.files]})
        document = {"settings": {f.name: getattr(self.settings, f.name) for f in fields(Settings)}, "turns": turns}
        (folder / "session.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")
        yield f"(saved {len(turns)} turns to {folder})"

    def do_help(self, _: str) -> Iterator[str]:
        """/help              this list"""
        for command in self.commands().values():
            yield command.__doc__.strip().splitlines()[0]
        yield "/quit              end the session"

    # ---- how an answer comes about

    def _request(self, task: str, **contents: str | AudioTokens) -> Request:
        return self.model.request(task, self.settings.prompt or None, **contents)

    def _answer(self, line: str, asked: Request, kept: tuple[Segment, ...] | None = None, speech: bool = True) -> str:
        """Ask the model, keep the turn, and return the line that shows the answer.

        kept: what the turn adds before the answer, where that is less than what was asked (the examples are there)
        speech: whether sound that answers is speech, which is sampled at another temperature than music
        """
        sentence, role = asked.sentence, asked.role
        if kept is None:
            kept = sentence.segments
            sentence = self._with_memory(kept)
        generation = GenerationSettings(
            max_rows=self.settings.max_rows,
            temperature=self.settings.temperature if speech else self.settings.music_temperature,
            top_k=self.settings.top_k if role == "audio" else 1,
            guidance=self.settings.guidance if role == "audio" else 1.0,
            structural_guidance=1.0,
        )
        completion = self.model.complete([sentence], role, generation, [self.settings.seed])[0]
        if completion.segment is None:
            raise UserError(f"the model gave no {role} ({completion.reason}); try another /set seed")
        files, shown = self._present(line, completion)
        self.turns.append(Turn(line, (*kept, completion.segment), files))
        self.settings = replace(self.settings, seed=self.settings.seed + 1)
        return shown

    def _present(self, line: str, completion: Completion) -> tuple[tuple[Path, ...], str]:
        cut = "" if completion.reason == "end" else f" ({completion.reason})"
        if completion.segment.is_text:
            return (), f"{completion.segment.content or '(silence)'}{cut}"
        self.folder.mkdir(parents=True, exist_ok=True)
        name = line.split()[0].strip("/")
        number = 1
        while (path := self.folder / f"{name}-{number:03d}.wav").exists():
            number += 1
        tokens = completion.segment.content
        write_audio(path, self.model.waveform(tokens, steps=self.settings.steps or None, seed=self.settings.seed))
        return (path,), f"{path}  {tokens.seconds:.1f} s{cut}"

    def _with_memory(self, asked: tuple[Segment, ...]) -> AuditorySentence:
        """What is asked, after as many of the latest turns as are wanted and leave room for the answer."""
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

    def _tokens(self, file: str) -> AudioTokens:
        return self.model.tokens_of(Path(file).expanduser())

    def _file_or_words(self, text: str) -> Segment:
        path = Path(text).expanduser()
        looks_like_file = path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff")
        return Segment("audio", self._tokens(text)) if looks_like_file else Segment("text", text)


def _need(text: str, usage: str) -> str:
    if not text:
        raise UserError(f"write {usage}")
    return text.strip("\"'") if "FILE" in usage else text


def _two_parts(rest: str, usage: str) -> tuple[str, str]:
    """'first second second' -> first, 'second second'; a first part with spaces is quoted."""
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    if len(words) < 2:
        raise UserError(f"write {usage}")
    return words[0], " ".join(words[1:])
