"""The tasks: how one clip becomes an auditory sentence. Training and evaluation build their sentences here, both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from auditory_sentences.builders.analysis import write_analysis
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment
from codec.io.errors import UserError
from codec.io.strict import nearest
from codec.io.terminal import shown
from codec.streams import ALL_STREAMS
from codec.tokens import AudioTokens
from lm.text_normaliser import Use, normalise
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import AUDIO_PROMPT

if TYPE_CHECKING:
    from auditory_sentences.builders.catalogue import Cast, Catalogue
    from auditory_sentences.corpora.clip import Clip
    from auditory_sentences.lengths import Units
    from auditory_sentences.token_store import StoredClip


class Part(NamedTuple):
    """One segment of a task."""

    # as in Segment
    role: str
    # what fills it: "audio", "voice" (a stretch of it), or a name in CONTENTS or QUESTIONS
    content: str
    # whether it is learned
    is_target: bool = False
    # whose content it is: "" the clip that the sentence is about, else a path of relations (builders/catalogue.py); a
    # path to several clips makes as many segments
    of: str = ""


@dataclass(frozen=True)
class Task:
    """A task as a line of data (UniAudio 2.0's task definitions, published model §B.2)."""

    # in mixtures and in evaluation, with a label or a stream behind a colon
    name: str
    # the kinds of clip that it takes
    kinds: frozenset[str]
    # its segments in order, after the prompt
    parts: tuple[Part, ...]
    # a prompt is drawn from the bank and put first; left out where there is no condition either
    prompted: bool = True
    # for questions, the one label to ask about; None draws one of the clip's
    label: str | None = None

    @property
    def generates_audio(self) -> bool:
        """Text in, audio out: the sentences in which guidance dropout hides the conditions (published model, §B.4)."""
        return any(p.is_target and p.role not in TEXT_ROLES for p in self.parts) and any(
            not p.is_target and p.role in TEXT_ROLES for p in self.parts
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """Whose content its parts are, as `Catalogue.cast` takes them; none where all are the clip's own."""
        return tuple(dict.fromkeys(part.of for part in self.parts if part.of))

    @property
    def base(self) -> str:
        """The name without a label: what the prompt bank knows."""
        return self.name.partition(":")[0]


SPEECH, SOUND, MUSIC = frozenset({"speech"}), frozenset({"sound", "mixture"}), frozenset({"music"})
MIXTURE = frozenset({"mixture"})
ANY = SPEECH | SOUND | MUSIC

AUDIO, TARGET_AUDIO = Part("audio", "audio"), Part("audio", "audio", is_target=True)
VOICE = Part(AUDIO_PROMPT, "voice", of="speaker")
WORDS, TARGET_WORDS = Part("transcription", "text"), Part("transcription", "text", is_target=True)
LYRIC, TARGET_LYRIC = Part("lyric", "text"), Part("lyric", "text", is_target=True)
CAPTION, TARGET_CAPTION = Part("caption", "caption"), Part("caption", "caption", is_target=True)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("asr", SPEECH, (AUDIO, TARGET_WORDS)),
        Task("tts", SPEECH, (WORDS, TARGET_AUDIO)),
        Task("instruct_tts", SPEECH, (CAPTION, WORDS, TARGET_AUDIO)),
        Task("prompt_tts", SPEECH, (VOICE, WORDS, TARGET_AUDIO)),
        Task("prompt_instruct_tts", SPEECH, (VOICE, CAPTION, WORDS, TARGET_AUDIO)),
        Task("voice_conversion", SPEECH, (VOICE, AUDIO._replace(of="words"), TARGET_AUDIO)),
        Task("speech_with_sound", MIXTURE, (CAPTION, WORDS, TARGET_AUDIO)),
        Task("denoising", MIXTURE, (AUDIO, TARGET_AUDIO._replace(of="clean"))),
        Task("separation", MIXTURE, (AUDIO, TARGET_AUDIO._replace(of="parts"))),
        Task(
            "speaker_extraction",
            MIXTURE,
            (VOICE._replace(of="part.speaker"), AUDIO, TARGET_AUDIO._replace(of="part")),
        ),
        Task("dereverberation", SPEECH, (AUDIO, TARGET_AUDIO._replace(of="dry"))),
        Task("speech_editing", SPEECH, (Part("text", "instruction"), AUDIO._replace(of="original"), TARGET_AUDIO)),
        Task("spoken_answer", SPEECH, (AUDIO, TARGET_AUDIO._replace(of="answer"))),
        Task("written_answer", SPEECH, (AUDIO, Part("text", "text", True, of="answer"))),
        Task("continuation", ANY, (AUDIO, TARGET_AUDIO._replace(of="next"))),
        Task("speech_caption", SPEECH, (AUDIO, TARGET_CAPTION)),
        Task("lyric_recognition", MUSIC, (AUDIO, TARGET_LYRIC)),
        Task("song_generation", MUSIC, (LYRIC, TARGET_AUDIO)),
        Task("sound_caption", SOUND, (AUDIO, TARGET_CAPTION)),
        Task("sound_generation", SOUND, (CAPTION, TARGET_AUDIO)),
        Task("music_caption", MUSIC, (AUDIO, TARGET_CAPTION)),
        Task("music_generation", MUSIC, (CAPTION, TARGET_AUDIO)),
        Task("audio_qa", ANY, (Part("text", "question"), AUDIO, Part("text", "answer", is_target=True))),
        Task("audio_yes_no", ANY, (Part("text", "yes_no_question"), AUDIO, Part("text", "yes_no", is_target=True))),
        Task("analysis", ANY, (AUDIO, Part("text", "analysis", is_target=True))),
        Task(
            "descriptive_to_structural",
            ANY,
            (Part("descriptive", "audio"), Part("structural", "audio", is_target=True)),
        ),
        Task(
            "structural_to_descriptive",
            ANY,
            (Part("structural", "audio"), Part("descriptive", "audio", is_target=True)),
        ),
        Task("audio_only", ANY, (TARGET_AUDIO,), prompted=False),
        Task("text_only", ANY, (Part("text", "words", is_target=True),), prompted=False),
    )
}


def reading_tasks(task: Task) -> tuple[tuple[Task, Part], ...]:
    """The tasks that answer with what this one is told, each with the part: of speech from text, recognition.

    None where it is told nothing in words, or nothing that a task answers with.
    """
    told = [part for part in task.parts if not part.is_target and part.role in TEXT_ROLES]
    return tuple(
        (reader, part)
        for part in told
        for reader in TASKS.values()
        if reader.parts == (AUDIO, part._replace(is_target=True)) and reader.kinds & task.kinds
    )


VOICE_SECONDS = (1.0, 5.0)  # of a voice that is given as an example

# What fills a part, read off the clip. An empty text means that the clip cannot serve the task.
CONTENTS: Mapping[str, Callable[[Clip], str]] = {
    "text": lambda clip: clip.text,
    "caption": lambda clip: clip.caption,
    "words": lambda clip: clip.text or clip.caption,
    "instruction": lambda clip: clip.instruction,
    "analysis": write_analysis,
}


def _open_question(clip: Clip, label: str, rng: KeyedRng, bank: PromptBank) -> dict[str, str]:
    answer = clip.labels[label]
    return {"question": bank.question(label, answer, rng), "answer": answer}


def _yes_no_question(clip: Clip, label: str, rng: KeyedRng, bank: PromptBank) -> dict[str, str]:
    question, answer = bank.yes_no_question(label, clip.labels[label], rng)
    return {"yes_no_question": question, "yes_no": answer}


# Parts that are drawn together from one of the clip's labels.
QUESTIONS: Mapping[str, Callable[[Clip, str, KeyedRng, PromptBank], dict[str, str]]] = {
    "question": _open_question,
    "yes_no_question": _yes_no_question,
}


def find_task(name: str) -> Task:
    """The task of that name, with what it is narrowed to behind colons.

    "audio_qa:instrument" is audio_qa asking about that one label. "tts:descriptive" is tts with that stream of the
    audio alone: what text decides, at a third of the rows. "sound_generation:sound" takes that kind of clip alone, of
    those that the task takes.

    Raises:
        UserError: There is none (the nearest known name is named), or it cannot be narrowed so.
    """
    base, *details = name.split(":")
    task = TASKS.get(base)
    if task is None:
        near = get_close_matches(base, TASKS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known tasks: {', '.join(TASKS)}"
        raise UserError(f"there is no task '{name}'; {hint}")
    for detail in filter(None, details):
        if detail in task.kinds and len(task.kinds) > 1:
            task = replace(task, kinds=frozenset({detail}))
        elif any(map(_is_whole_answer, task.parts)):
            parts = (part._replace(role=detail) if _is_whole_answer(part) else part for part in task.parts)
            task = replace(task, parts=tuple(parts))
        elif task.label is None and any(part.content in QUESTIONS for part in task.parts):
            task = replace(task, label=detail)
        else:
            raise UserError(f"the task '{base}' asks about no label, so '{name}' means nothing; write '{base}'")
    return replace(task, name=name)


def _is_whole_answer(part: Part) -> bool:
    return part.is_target and part.role == ALL_STREAMS


def askable_labels(task: Task, clip: Clip, bank: PromptBank) -> list[str]:
    """The clip's labels that the task can ask about.

    Args:
        task: Which asks about all of them, or about one alone.
        clip: Whose labels these are.
        bank: Knows the values of those labels that can be asked about.
    """
    wanted = [task.label] if task.label else sorted(clip.labels)
    return [label for label in wanted if clip.labels.get(label) and label in bank.label_values]


def streams_of(task: Task) -> tuple[str, ...]:
    """Names of the streams that the task is about; none where it is about the whole of the audio."""
    roles = (part.role for part in task.parts)
    return tuple(role for role in roles if role not in (*TEXT_ROLES, ALL_STREAMS, AUDIO_PROMPT))


def require_streams(task: Task, streams: Iterable[str]) -> None:
    """Raise UserError where the task is about a stream that is none of a tokenizer's `streams`."""
    own = tuple(streams)
    for name in streams_of(task):
        if name not in own:
            raise UserError(
                f"the task '{task.name}' is about a stream {name!r}, and the tokens have {', '.join(own)}"
                f"{nearest(name, own)}"
            )


def is_eligible(task: Task, clip: Clip, bank: PromptBank) -> bool:
    """Whether a clip can serve a task, as far as it alone decides: see `cast_of` for the clips that it is related to.

    Args:
        task: Whose parts have to be filled.
        clip: Fills them.
        bank: Knows the values of those labels that can be asked about.
    """
    if clip.kind not in task.kinds:
        return False
    if any(part.content in QUESTIONS for part in task.parts) and not askable_labels(task, clip, bank):
        return False
    return _suits(task, "", clip)


def _suits(task: Task, path: str, clip: Clip) -> bool:
    """Whether a clip has what the task wants of the clip at a path."""
    return all(CONTENTS[part.content](clip) for part in task.parts if part.of == path and part.content in CONTENTS)


def cast_of(
    task: Task, catalogue: Catalogue, position: int, bank: PromptBank, rng: KeyedRng | None = None
) -> Mapping[str, tuple[int, ...]]:
    """The clips that a sentence of the task around a clip is about: path -> their positions, "" the clip itself.

    Empty where the clip cannot serve the task.

    Args:
        task: Whose parts have to be filled.
        catalogue: Of the split.
        position: Of the clip.
        bank: Knows the values of those labels that can be asked about.
        rng: Draws the others; without it, whatever will do: to know whether there are some.
    """
    if not is_eligible(task, catalogue.clip(position), bank):
        return {}
    return catalogue.cast(position, task.paths, partial(_suits, task), rng)


def task_segments(
    task: Task,
    clip: StoredClip,
    rng: KeyedRng,
    bank: PromptBank,
    cast: Cast | None = None,
) -> tuple[Segment, ...]:
    """The segments of a task, without its prompt.

    Args:
        task: Whose parts they are.
        clip: Fills them.
        rng: Chooses the question, and the stretch of a voice that is given.
        bank: Phrasings and label values.
        cast: The clips that fill the parts of others, where there are such parts.

    Raises:
        UserError: The clip, or one that it is cast with, cannot serve the task.
    """
    everyone = {**(cast.clips if cast else {}), "": (clip,)}
    if not is_eligible(task, clip, bank) or not all(
        everyone.get(path) and all(_suits(task, path, other) for other in everyone[path]) for path in task.paths
    ):
        raise UserError(
            f"the clip '{clip.id}' ({clip.kind}) lacks something that the task '{task.name}' needs; choose another clip"
        )
    require_streams(task, tuple(clip.tokens.streams))
    asked: dict[str, str] = {}
    if any(part.content in QUESTIONS for part in task.parts):
        label = rng.choice(askable_labels(task, clip, bank))
        for part in task.parts:
            if part.content in QUESTIONS:
                asked |= QUESTIONS[part.content](clip, label, rng, bank)
    segments = []
    for part in task.parts:
        for other in everyone[part.of]:
            if part.content == "voice" and cast:
                content: str | AudioTokens = _stretch(other.tokens, cast.units, rng)
            elif part.content == "audio":
                content = other.tokens
            else:
                content = asked[part.content] if part.content in asked else CONTENTS[part.content](other)
            segments.append(Segment(part.role, content, part.is_target))
    return tuple(segments)


def _stretch(tokens: AudioTokens, units: Units, rng: KeyedRng) -> AudioTokens:
    """One to five seconds of a voice, from anywhere in a clip; the whole of a shorter one."""
    whole, least, most = units.in_clip(tokens), units.at_least(VOICE_SECONDS[0]), units.at_least(VOICE_SECONDS[1])
    if whole <= least:
        return tokens
    count = rng.randint(least, min(most, whole))
    return units.crop(tokens, rng.randint(0, whole - count), count)


def prompt_segments(task: Task, rng: KeyedRng, bank: PromptBank) -> tuple[Segment, ...]:
    """The prompt of a task as a segment; none for tasks without one.

    Args:
        task: Any.
        rng: Chooses the prompt.
        bank: Prompts.
    """
    return (Segment("prompt", bank.prompt(task.base, rng)),) if task.prompted else ()


def build(
    task: Task | str, clip: StoredClip, rng: KeyedRng, bank: PromptBank, cast: Cast | None = None
) -> AuditorySentence:
    """A clip as an example of a task: prompt, conditions, then what is learned. A pure function of its arguments.

    Args:
        task: Or its name.
        clip: Fills the task's parts.
        rng: Chooses prompt and question.
        bank: Prompts, phrasings and label values.
        cast: The clips that fill the parts of others, where there are such parts; see `build_around`.

    Raises:
        UserError: The clip cannot serve the task.
    """
    task = find_task(task) if isinstance(task, str) else task
    prompt = prompt_segments(task, rng, bank)
    return AuditorySentence(prompt + task_segments(task, clip, rng, bank, cast), f"{task.name}:{clip.id}")


def build_around(task: Task, catalogue: Catalogue, position: int, rng: KeyedRng, bank: PromptBank) -> AuditorySentence:
    """The example of a task around a clip of a catalogue, with the clips that the task relates it to drawn there."""
    cast = catalogue.stored_cast(cast_of(task, catalogue, position, bank, rng) or {"": (position,)})
    return build(task, cast.clips[""][0], rng, bank, cast)


class Request(NamedTuple):
    """A sentence to be continued."""

    # what is given
    sentence: AuditorySentence
    # of what is asked for, as in Segment
    role: str
    # the right answer, where it is known
    reference: str | AudioTokens | None = None


def request(
    name: str,
    rng: KeyedRng | None = None,
    bank: PromptBank | None = None,
    prompt: str | None = None,
    **contents: str | AudioTokens,
) -> Request:
    """A request made of a person's own material, in the form in which the task is trained.

        request("instruct_tts", caption="a low voice", text="hello")
        request("audio_qa", question="Which instrument plays?", audio=tokens)

    Args:
        name: Of the task.
        rng: Chooses the prompt; without it, the same prompt every time.
        bank: Prompts; the project's own if not given.
        prompt: The prompt itself, in place of the bank's.
        contents: What fills the task's conditions, by name.

    Raises:
        UserError: There is no such task, or the prompt is empty.
        ValueError: A condition is missing, or one is given that the task does not have.
    """
    task = find_task(name)
    given = [part for part in task.parts if not part.is_target]
    needed = {part.content for part in given}
    if needed != set(contents) or not given:
        raise ValueError(f"a request for '{name}' is made of {sorted(needed) or 'nothing'}, not of {sorted(contents)}")
    if prompt is None:
        asked = prompt_segments(task, rng or KeyedRng("request"), bank or PromptBank.load())
    elif not prompt.strip():
        raise UserError("the prompt is empty; write what the model shall do, or leave --prompt out")
    else:
        asked = (Segment("prompt", prompt),)
    segments = asked + tuple(Segment(part.role, contents[part.content]) for part in given)
    return Request(AuditorySentence(segments, name), next(part.role for part in task.parts if part.is_target))


USES: Mapping[str, Use] = {"transcription": "words", "lyric": "words", "caption": "description"}


def in_vocabulary(asked: Request, tokenizer: TextTokenizer) -> Request:
    """The request with a person's texts in the words of the model that will answer; its prompt stays.

    Warns of what had to be dropped.

    Raises:
        UserError: Nothing is left of a text.
    """
    segments = tuple(map(partial(_in_vocabulary, tokenizer=tokenizer), asked.sentence.segments))
    return asked._replace(sentence=AuditorySentence(segments, asked.sentence.name))


def _in_vocabulary(segment: Segment, tokenizer: TextTokenizer) -> Segment:
    content = segment.content
    if not isinstance(content, str) or segment.role == "prompt":
        return segment
    said, dropped = normalise(content, tokenizer, USES.get(segment.role, "text"))
    names = ", ".join(shown(c) for c in dropped[:10]) + (", ..." if len(dropped) > 10 else "")
    if not said:
        without = f": the model has no words for {names}" if names else ""
        raise UserError(f"there is nothing to say in {shown(content)}{without}; write it in words")
    if dropped:
        warnings.warn(f"{shown(content)}: the model has no words for {names}, left out", stacklevel=3)
    return replace(segment, content=said)


def request_of(sentence: AuditorySentence, answers: int = 1) -> Request:
    """Cut the last segment off a training sentence: the evaluation request whose right answer is that segment.

    What is given is all condition now, the answers of a few-shot episode's examples included.

    Args:
        sentence: As for training.
        answers: Segments that are cut off, where several are asked for; the reference is the first of them.

    Raises:
        ValueError: The last segment is not learned, or nothing is left to answer to.
    """
    given, asked = sentence.segments[:-answers], sentence.segments[-answers:]
    if not all(segment.is_target for segment in asked):
        raise ValueError(f"'{sentence.name}' ends with a '{asked[-1].role}' that is not learned; nothing to ask for")
    if not given:
        raise ValueError(f"'{sentence.name}' is one segment only; without it there is nothing to ask with")
    conditions = tuple(replace(segment, is_target=False) for segment in given)
    return Request(AuditorySentence(conditions, sentence.name), asked[0].role, asked[0].content)
