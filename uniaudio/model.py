"""UniAudio: a language model with its two tokenizers; every program that uses a model does it through this class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, Request, find_task, in_vocabulary, reading_tasks, request
from auditory_sentences.sentence import TEXT_ROLES, AuditorySentence, Segment, TextRole, to_rows, with_generation_prompt
from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.shipped import STARTER_MODEL
from codec.io.strict import parse
from codec.io.terminal import sentence_of
from codec.pretrained import CONFIG_FILE, saved_folder
from codec.streams import ALL_STREAMS
from codec.tokenizer import AudioTokenizer, load_tokenizer
from codec.tokens import AudioTokens
from lm.generation.generate import generate_audio, generate_text, score_text, stream_audio
from lm.generation.settings import GenerationSettings, settings_for
from lm.model import UniAudioForConditionalGeneration
from lm.rows import Rows
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import VocabularyLayout
from uniaudio.candidates import best_candidates
from uniaudio.completion import Completion, Sound, SoundStream
from uniaudio.contents import Content, Examples, Recording, read_contents, read_shown, request_after
from uniaudio.processor import (
    AUDIO_FOLDER,
    TEXT_FOLDER,
    VOCABULARY_FILE,
    UniAudioProcessor,
    require_parts,
)
from uniaudio.recordings import SILENCE, is_silent, require_length
from uniaudio.release_prompts import bank_of, save_prompts
from uniaudio.requests import (
    MAX_SECONDS,
    MAX_TEXT_ROWS,
    composition_task,
    description_task,
    speech_task,
)
from uniaudio.streaming import decoded_while_generated
from uniaudio.version import VERSION

BATCH = 16  # requests generated at once


class UniAudio:
    """A model with its tokenizers, as one folder: config.json, model.safetensors, vocabulary.json, text_tokenizer/,
    audio_tokenizer/, and prompts.json where a release has prompts of its own.

    Args:
        model: The language model.
        text_tokenizer: Of its text.
        codec: Of its audio.
        source: Folder that they come from, for messages.
        bank: How tasks are put into words for this model; None: as the project does.

    Raises:
        UserError: A tokenizer is not the one of the model's vocabulary.
    """

    def __init__(
        self,
        model: UniAudioForConditionalGeneration,
        text_tokenizer: TextTokenizer,
        codec: AudioTokenizer,
        source: Path | None = None,
        bank: PromptBank | None = None,
    ) -> None:
        self.model, self.text_tokenizer, self.codec = model.eval(), text_tokenizer, codec.eval()
        self.layout: VocabularyLayout = model.config.layout
        self.processor = UniAudioProcessor(text_tokenizer, codec, self.layout, source)
        self.bank = bank or PromptBank.load()
        self.name = "/".join(source.parts[-2:]) if source else "without a name"  # no more of a person's folders

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str | torch.device = "cpu") -> UniAudio:
        """Load a model folder, shipped name, or hub id. Raises UserError naming the file that is missing or unfit."""
        folder = local_folder(source, "model", option="--model")
        require_parts(folder, (CONFIG_FILE, VOCABULARY_FILE, TEXT_FOLDER, AUDIO_FOLDER))
        model: UniAudioForConditionalGeneration = UniAudioForConditionalGeneration.from_pretrained(folder, dtype="auto")
        layout = VocabularyLayout.load(folder / VOCABULARY_FILE)
        layout.require_same(model.config.layout, str(folder / VOCABULARY_FILE), str(folder / "config.json"))
        text_tokenizer = TextTokenizer.from_pretrained(folder / TEXT_FOLDER)
        codec = load_tokenizer(folder / AUDIO_FOLDER).to(device)
        return cls(
            model.to(device),  # type: ignore[arg-type]  # the wrapper around it hides its signature
            text_tokenizer,
            codec,
            folder,
            bank_of(folder),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything that `from_pretrained` reads."""
        ours = PromptBank.load().prompts
        released = {task: sentences for task, sentences in self.bank.prompts.items() if sentences != ours.get(task)}
        with saved_folder(folder) as scratch:
            self.processor.save_pretrained(scratch)
            self.model.save_pretrained(scratch)
            if released:
                save_prompts(released, scratch)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def unguided_streams(self) -> dict[str, float]:
        """Guidance 1 for the streams after the first: they follow it, and guiding them too blurs them."""
        return {stream.name: 1.0 for stream in self.layout.streams[1:]}

    # ---- audio in and out

    def tokens_of(self, audio: Recording) -> AudioTokens:
        """Tokens of a sound file, or of a waveform (n,) at the codec's rate; see `UniAudioProcessor.tokens_of`."""
        return self.processor.tokens_of(audio)

    def waveform(
        self, tokens: AudioTokens, steps: int | None = None, seed: int = 0, guidance: float | None = None
    ) -> Tensor:
        """What the tokens sound like: (num_samples,) float32 at the codec's rate, on the CPU.

        Args:
            steps, guidance: Of the codec's decoder; None: what it was made for.
        """
        return self.waveforms([tokens], steps, [seed], guidance)[0]

    def waveforms(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seeds: Sequence[int] | None = None,
        guidance: float | None = None,
    ) -> list[Tensor]:
        """Like `waveform`, for many clips in batches; each clip sounds the same in any batch."""
        return self.processor.waveforms(tokens, steps, seeds, guidance)

    # ---- tasks by name

    def speak(
        self,
        text: str,
        voice: str = "",
        *,
        examples: Examples = (),
        prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        **sampling: Any,
    ) -> Sound:
        """Speak a text.

        Args:
            text: Words to speak; written in the model's vocabulary first (lm/text_normaliser.py).
            voice: Description of the voice, in words; empty: the model's choice.
            examples: As `perform`.
            prompt: Instruction in place of the model's own for the task.
            seed: Same seed, same sound.
            steps: Of the codec's decoder; None: as many as it was made for.
            sampling: Fields of `lm.generation.settings.GenerationSettings`, such as temperature=0.5, guidance=2.0 or
                max_seconds=8; what is not given is the model's own for the task.

        Raises:
            UserError: Nothing of the text can be spoken, it does not fit the context, or no audio was generated.
        """
        asked = self.request_in_vocabulary(*speech_task(text, voice), prompt, examples)
        return self.generate_sound(asked, seed, steps, **sampling)

    def compose(
        self,
        description: str,
        sound: bool = False,
        *,
        examples: Examples = (),
        prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        **sampling: Any,
    ) -> Sound:
        """Make music, or with `sound` a sound, from a description; the other arguments are those of `speak`."""
        asked = self.request_in_vocabulary(*composition_task(description, sound), prompt, examples)
        return self.generate_sound(asked, seed, steps, **sampling)

    def perform(
        self,
        task: str,
        *,
        examples: Examples = (),
        prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        parts: int = 1,
        sampling: Mapping[str, Any] | None = None,
        **contents: Content,
    ) -> list[Sound]:
        """Do any task that answers with sound (docs/tasks.md).

            model.perform("prompt_tts", voice="sample.wav", text="three two one")
            model.perform("separation", audio="mixture.wav", parts=2)
            model.perform("denoising", audio="c.wav", examples=[{"audio": "a.wav", "answer": "a_clean.wav"}])

        Args:
            task: Its name.
            examples: Solved ones, which the model sees before it is asked: of each what the task is given, by the same
                names, and the `answer` (a list of them where there are `parts`); or the folder that describes them.
            prompt: Instruction in place of the model's own for the task.
            seed: Same seed, same sounds.
            steps: Of the codec's decoder; None: as many as it was made for.
            parts: Sounds that are asked for, one after the other: of a separation, those that were mixed.
            sampling: As `settings_of`.
            contents: What the task is given, by name: texts as they are, audio as a file, a waveform (n,) at the
                codec's rate or tokens. Of a voice the first five seconds count.

        Raises:
            UserError: A file cannot be read, an example lacks a part, nothing of a text can be said, all of it does not
                fit the context, or no audio was generated.
            ValueError: The task is not given what it needs.
        """
        roles = {part.content: part.role for part in find_task(task).parts if not part.is_target}
        asked = self.request_in_vocabulary(task, read_contents(self, roles, contents), prompt, examples)
        sounds: list[Sound] = []
        for part in range(parts):
            sounds.append(self.generate_sound(asked, seed + part, steps, **(sampling or {})))
            said = Segment("audio", sounds[-1].tokens)
            asked = asked._replace(sentence=AuditorySentence((*asked.sentence.segments, said), asked.sentence.name))
        return sounds

    def transcribe(
        self,
        audio: Recording,
        prompt: str | None = None,
        max_rows: int = MAX_TEXT_ROWS,
        examples: Examples = (),
    ) -> str:
        """The words that are spoken in a recording; "" where it is silent.

        Args:
            audio: Sound file, or a mono waveform (n,) at the codec's rate.
            prompt: Instruction in place of the model's own for the task.
            max_rows: Longest answer, in rows.
            examples: As `perform`: of each the `audio`, and the words as the `answer`.

        Raises:
            UserError: A file cannot be read, or all of it does not fit the context.
        """
        return self._answer_about(audio, "asr", prompt, max_rows, examples)

    def describe(
        self,
        audio: Recording,
        music: bool = False,
        prompt: str | None = None,
        max_rows: int = MAX_TEXT_ROWS,
        examples: Examples = (),
    ) -> str:
        """A description of a sound, or with `music` of music; the other arguments are those of `transcribe`."""
        return self._answer_about(audio, description_task(music), prompt, max_rows, examples)

    def _answer_about(self, audio: Recording, task: str, prompt: str | None, max_rows: int, examples: Examples) -> str:
        (answer,) = self.answers_about([audio], task, prompt, max_rows, examples)
        if isinstance(answer, UserError):
            raise answer
        if answer.segment is None:
            warnings.warn(f"{audio}: is silent (nothing above {SILENCE:.0f} dB)", stacklevel=3)
            return ""
        if answer.reason != "end":
            warnings.warn(f"the answer is not complete ({answer.reason}); raise max_rows", stacklevel=3)
        return answer.line

    def answers_about(
        self,
        recordings: Sequence[Recording],
        task: str,
        prompt: str | None = None,
        max_rows: int = MAX_TEXT_ROWS,
        examples: Examples = (),
    ) -> list[Completion | UserError]:
        """Do a task that takes one recording and answers in text, for many recordings at once.

        Returns:
            Of each recording the answer, without a segment where the file is silent, or why there is none: one that
            cannot be read does not keep the others from being answered.

        Raises:
            UserError: An example cannot be read, or lacks a part.
        """
        shown = read_shown(self, task, examples)
        answers: list[Completion | UserError | None] = []
        requests = []
        for recording in recordings:
            is_file = isinstance(recording, str | Path)
            try:
                if isinstance(recording, str | Path) and is_silent(recording):
                    answers.append(Completion(None, "end"))
                    continue
                asked = request_after(self, self.request(task, prompt, audio=self.read_recording(recording)), shown)
                self.require_room(asked.sentence, asked.role)
            except (UserError, OSError) as error:
                sentence = sentence_of(error)
                named = not is_file or str(recording) in str(sentence)
                answers.append(sentence if named else UserError(f"{recording}: {sentence}"))
            else:
                answers.append(None)
                requests.append(asked)
        settings = GenerationSettings(max_rows=max_rows, top_k=1)
        sentences, roles = [asked.sentence for asked in requests], [asked.role for asked in requests]
        made = iter(self.complete(sentences, roles, settings, [0] * len(requests)))
        return [next(made) if answer is None else answer for answer in answers]

    def read_recording(self, audio: Recording) -> AudioTokens:
        """As `tokens_of`, for a recording that shall fit the model's context: too long a file is refused unread, and
        one that is too short to mean anything is warned of."""
        if isinstance(audio, str | Path):
            require_length(audio, self.layout, self.context)
        return self.tokens_of(audio)

    def request_in_vocabulary(
        self, task: str, contents: Mapping[str, str | AudioTokens], prompt: str | None, examples: Examples = ()
    ) -> Request:
        """As `request`, after solved examples, with the texts in the words that the model knows. Warns of what had to
        be left out."""
        asked = in_vocabulary(self.request(task, prompt, **contents), self.text_tokenizer)
        return request_after(self, asked, read_shown(self, task, examples))

    def settings_of(self, task: str, **sampling: Any) -> GenerationSettings:
        """How audio is generated for a task: as `sampling` says, else as the model's generation_config.json does.

        Where neither says anything, the settings are those of the published scripts, without guidance.

        Args:
            task: Its name.
            sampling: Fields of `GenerationSettings`; None stands for one that is not given. A temperature is that of
                every stream, but for those in `stream_temperature`.

        Raises:
            UserError: A field is unknown or out of range.
        """
        own = asdict(settings_for(self.model.generation_config, task))
        seconds = sampling.get("max_seconds") or own["max_seconds"] or MAX_SECONDS
        own["stream_guidance"] = own["stream_guidance"] or self.unguided_streams
        if task in TASKS and not reading_tasks(TASKS[task]):
            own["candidates"] = 1  # what a folder says of all tasks is for those that can be chosen among
        asked = {name: value for name, value in sampling.items() if value is not None}
        if "temperature" in asked:
            own["stream_temperature"] = {}
        settings = parse(GenerationSettings, own | asked | {"max_seconds": seconds}, "sampling")
        return settings if "max_rows" in asked else replace(settings, max_rows=self.layout.rows_in(seconds))

    def generate_sound(self, asked: Request, seed: int = 0, steps: int | None = None, **sampling: Any) -> Sound:
        """The audio that answers a request. Raises UserError where none was generated.

        Args:
            asked: The request.
            seed: Same seed, same sound.
            steps: Of the codec's decoder; None: as many as it was made for.
            sampling: As `settings_of`.
        """
        settings = self.settings_of(asked.sentence.name, **sampling)
        made = self.complete([asked.sentence], "audio", settings, [seed])[0]
        tokens = made.tokens
        waveform = self.waveform(tokens, steps=steps, seed=seed)
        return Sound(waveform, self.codec.sample_rate, tokens, made.reason, self.provenance(asked.sentence.name, seed))

    def provenance(self, task: str, seed: int) -> str:
        """What a file of generated sound says of itself: that it is synthetic, by which model, on which day.

        No more than the day: the same request makes the same file, to the byte.
        """
        made = datetime.now(UTC).date().isoformat()
        return f"synthetic: made by UniAudio {VERSION}, model {self.name}, {task}, seed {seed}, {made}"

    # ---- requests

    def request(self, name: str, prompt: str | None = None, **contents: str | AudioTokens) -> Request:
        """A request for a task, with the instruction of this model's prompt bank; errors as `tasks.request`.

        Args:
            name: Of the task.
            prompt: Instruction in place of the model's own.
            contents: What fills the task's conditions, by name.
        """
        trained = self.trained_tasks
        if trained and name.partition(":")[0] not in trained:
            warnings.warn(f"the model was not trained for {name!r}; it was for {', '.join(trained)}", stacklevel=2)
        return request(name, None, self.bank, prompt, **contents)

    @property
    def trained_tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the model was trained for; none where its folder does not say."""
        parts = [part for name in self.model.config.tasks or () for part in name.split(":")]
        return tuple(name for name in TASKS if name in parts)

    @property
    def tasks_with_examples(self) -> tuple[str, ...]:
        """Names of those that it was trained for with solved examples before what is asked."""
        entries = [name.split(":") for name in self.model.config.tasks or ()]
        return tuple(name for name in TASKS if ["few_shot", name] in [entry[:2] for entry in entries])

    def complete(
        self,
        sentences: Sequence[AuditorySentence],
        role: str | Sequence[str],
        settings: GenerationSettings,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """Continue each sentence with one segment.

        A completion depends on its sentence, its seed and the settings alone, not on what else is asked. Everything
        given is condition: classifier-free guidance compares with a prompt in which all of it is dropped. With
        `settings.candidates` audio is the best of several, see uniaudio/candidates.py.

        Args:
            sentences: To continue.
            role: Of the segments: text in any role but "prompt", or "audio"; one for all, or one per sentence.
            settings: How to generate.
            seeds: One per sentence.

        Raises:
            UserError: A sentence does not fit the model's context, or holds another tokenizer's audio; or nothing reads
                back what it asks, where there are candidates.
        """
        roles = [role] * len(sentences) if isinstance(role, str) else list(role)
        if not len(sentences) == len(roles) == len(seeds):
            raise ValueError(
                f"{len(sentences)} sentences, {len(roles)} roles and {len(seeds)} seeds do not go together"
            )
        for asked in roles:
            if asked not in (*TEXT_ROLES, ALL_STREAMS) or asked == "prompt":
                raise ValueError(f"a sentence cannot be completed with '{asked}'; ask for text, or for whole audio")
        given = [_as_condition(sentence) for sentence in sentences]
        prompts = [self._opened(s, r) if r != "audio" else self._rows(s) for s, r in zip(given, roles, strict=True)]
        completions: dict[int, Completion] = {}

        def run(chosen: list[int], generate: Callable[[list[int]], list[Completion]]) -> None:
            """In batches of prompts of like length, so that little is padding."""
            chosen = sorted(chosen, key=lambda i: len(prompts[i]))
            for start in range(0, len(chosen), BATCH):
                some = chosen[start : start + BATCH]
                completions.update(zip(some, generate(some), strict=True))

        def write(some: list[int]) -> list[Completion]:
            made = generate_text(self.model, [prompts[i] for i in some], settings, [seeds[i] for i in some])
            pairs = zip(some, made, strict=True)
            return [Completion(Segment(roles[i], self.text_tokenizer.decode(m.ids)), m.reason) for i, m in pairs]

        def play(some: list[int]) -> list[Completion]:
            if settings.candidates > 1:
                return best_candidates(self, [given[i] for i in some], settings, [seeds[i] for i in some])
            hidden = [self._rows(given[i], hide=True) for i in some] if settings.guided else None
            made = generate_audio(self.model, [prompts[i] for i in some], settings, [seeds[i] for i in some], hidden)
            pairs = [(self.processor.audio_tokens(m), m.reason) for m in made]
            return [
                Completion(None if tokens is None else Segment("audio", tokens), reason) for tokens, reason in pairs
            ]

        run([i for i, asked in enumerate(roles) if asked != "audio"], write)
        run([i for i, asked in enumerate(roles) if asked == "audio"], play)
        return [completions[i] for i in range(len(sentences))]

    def stream(
        self,
        sentence: AuditorySentence,
        settings: GenerationSettings,
        seed: int,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> SoundStream:
        """Continue a sentence with audio, and decode it while the model still generates.

        The tokens are those of `complete`. The sound is that of `codec.decode` with the same seed and
        first_window=codec.low_latency_window: the codec begins with a short window, so that the first piece comes
        early.

        Args:
            steps, guidance: Of the codec's decoder; None: what it was made for.

        Raises:
            UserError: The sentence does not fit the model's context, or holds another tokenizer's audio, or there shall
                be candidates, which are whole sounds.
        """
        if settings.candidates > 1:
            raise UserError("sound that is sent while it is made cannot be the best of several; leave candidates at 1")
        given = _as_condition(sentence)
        prompt = self._rows(given)
        hidden = [self._rows(given, hide=True)] if settings.guided else None
        decoder = self.codec.stream(
            steps=steps, seed=seed, guidance=guidance, first_window=self.codec.low_latency_window
        )

        frames = stream_audio(self.model, [prompt], settings, [seed], hidden)
        return SoundStream(decoded_while_generated(frames, decoder, self.processor))

    def choose(
        self, sentences: Sequence[AuditorySentence], role: TextRole, options: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """How likely each option is as the next segment: per sentence, one natural log-probability for each option.

        The probability is that of the whole segment, its end included, so options of any length compare, and over all
        texts it sums to one. Raises UserError where a sentence with its option does not fit the model's context.
        """
        if len(sentences) != len(options):
            raise ValueError(f"{len(sentences)} sentences and {len(options)} lists of options do not go together")
        prompts, continuations = [], []
        for sentence, choices in zip(sentences, options, strict=True):
            prompt = self._opened(_as_condition(sentence), role)
            for option in choices:
                ids = [*self.text_tokenizer.encode(option), self.layout.text_eos]
                self._require_room(len(prompt) + len(ids), sentence)
                prompts.append(prompt)
                continuations.append(ids)
        scores = iter(score_text(self.model, prompts, continuations))
        return [[next(scores) for _ in choices] for choices in options]

    def room_after(self, sentence: AuditorySentence) -> int:
        """Rows that the model's context still has after a sentence; below 0 where the sentence alone is too long."""
        return self.context - len(to_rows(sentence, self.layout, self.text_tokenizer))

    def require_room(self, sentence: AuditorySentence, role: str) -> None:
        """Raise UserError where a sentence leaves no room in the model's context for an answer of the role."""
        self._rows(sentence) if role == "audio" else self._opened(sentence, role)

    # ---- how sentences become prompts

    @property
    def context(self) -> int:
        """Rows that the model sees at most, what it generates included."""
        return self.model.config.cross_modal.max_position_embeddings

    def _rows(self, sentence: AuditorySentence, hide: bool = False) -> Rows:
        rows = to_rows(sentence, self.layout, self.text_tokenizer, drop_conditions=hide)
        self._require_room(len(rows) + 1, sentence)
        return rows

    def _opened(self, sentence: AuditorySentence, role: str) -> Rows:
        """The sentence's rows and the beginning of a text segment: tag and BOS, what comes before its first word."""
        rows = with_generation_prompt(sentence, role, self.layout, self.text_tokenizer)
        self._require_room(len(rows) + 1, sentence)
        return rows

    def _require_room(self, rows: int, sentence: AuditorySentence) -> None:
        if rows > self.context:
            raise UserError(
                f"the sentence '{sentence.name}' takes {rows} rows, but the model's context holds {self.context}; "
                "use shorter audio, less text or fewer examples"
            )


def _as_condition(sentence: AuditorySentence) -> AuditorySentence:
    """The same sentence with nothing in it to be learned."""
    return AuditorySentence(tuple(replace(segment, is_target=False) for segment in sentence.segments), sentence.name)


def load(source: str | Path = STARTER_MODEL, device: str | torch.device | None = None) -> UniAudio:
    """A model with its tokenizers, ready to use.

    Args:
        source: Model folder, shipped name, or hub id.
        device: None: the GPU where there is one, else the CPU.

    Raises:
        UserError: There is no such model, or a file of it is missing or unfit.
    """
    return UniAudio.from_pretrained(source, device or ("cuda" if torch.cuda.is_available() else "cpu"))
