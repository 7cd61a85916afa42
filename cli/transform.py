"""Verbs that make sound of recordings: `uniaudio clone`, `convert`, `denoise`, `separate`, `edit` and their like.

Each is one task of auditory_sentences/builders/tasks.py. What a model was not trained for it says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.generate import SecondsOption
from cli.options import (
    CandidatesOption,
    ExamplesOption,
    ForceOption,
    GuidanceOption,
    ModelOption,
    PromptOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    load_model,
    number_option,
    read_examples,
)
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import complain, one_line, say

CONSENT = "this speaks in the voice of the recording: have the consent of whoever it is, and say that it is synthetic"

WordsArgument = Annotated[str, typer.Argument(help="Words to say.")]
RecordingArgument = Annotated[Path, typer.Argument(help="Sound file.")]
VoiceOption = Annotated[Path, typer.Option("--voice", help="Recording of the voice, of which five seconds count.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Sound file to write (.wav or .flac).")]

Task = tuple[str, dict[str, str | Path]]  # name of the task, and what it is given


def clone(
    text: WordsArgument,
    voice: VoiceOption,
    style: Annotated[str, typer.Option("--style", help="How to say it, in words.")] = "",
) -> Task:
    """Say some words in the voice of a recording."""
    if style:
        return "prompt_instruct_tts", {"voice": voice, "caption": style, "text": text}
    return "prompt_tts", {"voice": voice, "text": text}


def convert(audio: RecordingArgument, voice: VoiceOption) -> Task:
    """Say what is said in a recording in the voice of another one."""
    return "voice_conversion", {"voice": voice, "audio": audio}


def denoise(
    audio: RecordingArgument,
    room: Annotated[bool, typer.Option("--room", help="Take the room away rather than the noise.")] = False,
) -> Task:
    """Give the speech of a recording without its noise."""
    return "dereverberation" if room else "denoising", {"audio": audio}


def separate(audio: RecordingArgument) -> Task:
    """Take a mixture apart, one file for each part."""
    return "separation", {"audio": audio}


def extract(audio: RecordingArgument, voice: VoiceOption) -> Task:
    """Give of a mixture what is said in the voice of another recording."""
    return "speaker_extraction", {"voice": voice, "audio": audio}


def edit(audio: RecordingArgument, instruction: Annotated[str, typer.Argument(help="What to change.")]) -> Task:
    """Change a recording of speech as a text says."""
    return "speech_editing", {"instruction": instruction, "audio": audio}


def go_on(audio: RecordingArgument) -> Task:
    """Go on where a recording ends."""
    return "continuation", {"audio": audio}


def answer(audio: RecordingArgument) -> Task:
    """Answer a spoken question aloud."""
    return "spoken_answer", {"audio": audio}


def sing(text: WordsArgument) -> Task:
    """Sing some words."""
    return "song_generation", {"text": text}


PartsOption = Annotated[int, number_option(numbers.Count, "--parts", help="Parts that the mixture has.")]
VERBS: Mapping[str, Callable[..., Task]] = {
    "clone": clone, "convert": convert, "denoise": denoise, "separate": separate, "extract": extract, "edit": edit,
    "continue": go_on, "answer": answer, "sing": sing,
}  # fmt: skip


def command(name: str) -> Callable[..., None]:
    """The verb as the command line takes it: its own arguments, and the options that all of them have."""
    request = VERBS[name]
    own = list(inspect.signature(request, eval_str=True).parameters.values())
    shared = list(inspect.signature(_make, eval_str=True).parameters.values())[2:]
    left_out = {"parts"} if request is not separate else set()
    if request not in (clone, sing):  # nothing in words by which to choose
        left_out.add("candidates")
    shared = [option for option in shared if option.name not in left_out]

    def verb(**given: Any) -> None:
        task, contents = request(**{option.name: given.pop(option.name) for option in own})
        _make(task, contents, **given)

    verb.__doc__ = request.__doc__
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*own, *shared)]
    verb.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    verb.__annotations__ = {option.name: option.annotation for option in options}
    return verb


def _make(
    task: str,
    contents: Mapping[str, str | Path],
    out: OutOption = None,
    parts: PartsOption = 2,
    model: ModelOption = Path(STARTER_MODEL),
    seed: SeedOption = 0,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    guidance: GuidanceOption = None,
    candidates: CandidatesOption = None,
    steps: StepsOption = None,
    max_seconds: SecondsOption = None,
    prompt: PromptOption = None,
    examples: ExamplesOption = None,
    force: ForceOption = False,
) -> None:
    from cli.results import sound_result

    for name, text in contents.items():
        if isinstance(text, str) and not text.strip():
            raise UserError(f"the {name} is empty; write what shall be said or done")
    inputs = [content for content in contents.values() if isinstance(content, Path)]
    count = parts if task == "separation" else 1
    named = out or Path(f"{inputs[-1].stem if inputs else task}-{task}.wav")
    names = [named] if count == 1 else [named.with_stem(f"{named.stem}-{i + 1}") for i in range(count)]
    results = [sound_result(name if out else None, name, inputs, force) for name in names]
    solved = read_examples(examples, task)
    if "voice" in contents:
        complain(CONSENT)
    sampling = dict(
        temperature=temperature, top_k=top_k, guidance=guidance, candidates=candidates, max_seconds=max_seconds
    )
    made = load_model(model).perform(
        task, examples=solved, prompt=prompt, seed=seed, steps=steps, parts=count, sampling=sampling, **contents
    )
    for result, sound in zip(results, made, strict=True):
        result.write_sound(sound.waveform, sound.sample_rate, sound.provenance)
        say(f"{one_line(result.path)}  {sound.seconds:.1f} s")
        if sound.reason != "end":
            complain(f"{result.path}: the sound is not complete ({sound.reason}); raise --max-seconds for a longer one")
