"""Verbs that make sound: `uniaudio speak` and `uniaudio compose`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.options import (
    OWN,
    CandidatesOption,
    ExamplesOption,
    ForceOption,
    GuidanceOption,
    ModelOption,
    PromptOption,
    SeedOption,
    StepsOption,
    StructuralTemperatureOption,
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
from uniaudio.requests import composition_task, speech_task

if TYPE_CHECKING:
    from auditory_sentences.builders.tasks import Request
    from lm.generation.batch import Reason
    from lm.generation.settings import GenerationSettings
    from uniaudio.model import UniAudio

OUT_HELP = "Sound file to write (.wav or .flac), or - to send a WAV to a pipe while it is being made; if not given, {}."
SpeechOption = Annotated[
    Path | None, typer.Option("--out", "-o", help=OUT_HELP.format("speech.wav or the next free name"))
]
CompositionOption = Annotated[
    Path | None, typer.Option("--out", "-o", help=OUT_HELP.format("composition.wav or the next free name"))
]
SecondsOption = Annotated[
    float | None, number_option(numbers.Length, "--max-seconds", help="Longest sound, in seconds." + OWN)
]


class Asked(NamedTuple):
    """What a verb asks of the model."""

    # its name
    task: str
    # what it is given, by name
    contents: dict[str, str]
    # instruction in place of the model's own
    prompt: str | None
    # folder of solved ones
    examples: Path | None


class Target(NamedTuple):
    """Where a sound goes: what was asked for, the usual name where nothing was, and whether that may be replaced."""

    # what was asked for
    out: Path | None
    # its name where nothing was asked for
    usual: Path
    # whether a file there may be replaced
    force: bool


def speak(
    text: Annotated[str, typer.Argument(help="Words to say.")],
    out: SpeechOption = None,
    voice: Annotated[str, typer.Option("--voice", help="Description of the voice, in words.")] = "",
    model: ModelOption = Path(STARTER_MODEL),
    seed: SeedOption = 0,
    temperature: TemperatureOption = None,
    structural_temperature: StructuralTemperatureOption = None,
    top_k: TopKOption = None,
    guidance: GuidanceOption = None,
    candidates: CandidatesOption = None,
    steps: StepsOption = None,
    max_seconds: SecondsOption = None,
    prompt: PromptOption = None,
    examples: ExamplesOption = None,
    force: ForceOption = False,
) -> None:
    """Say some words."""
    sampling = dict(
        temperature=temperature, top_k=top_k, guidance=guidance, candidates=candidates, max_seconds=max_seconds
    )
    target = Target(out, Path("speech.wav"), force)
    wanted = Asked(*speech_task(text, voice), prompt, examples)
    _make(wanted, target, model, sampling, structural_temperature, seed, steps)


def compose(
    caption: Annotated[str, typer.Argument(help="What it should sound like.")],
    out: CompositionOption = None,
    sound: Annotated[bool, typer.Option("--sound", help="A sound rather than music.")] = False,
    model: ModelOption = Path(STARTER_MODEL),
    seed: SeedOption = 0,
    temperature: TemperatureOption = None,
    structural_temperature: StructuralTemperatureOption = None,
    top_k: TopKOption = None,
    guidance: GuidanceOption = None,
    candidates: CandidatesOption = None,
    steps: StepsOption = None,
    max_seconds: SecondsOption = None,
    prompt: PromptOption = None,
    examples: ExamplesOption = None,
    force: ForceOption = False,
) -> None:
    """Make music, or a sound, from a description."""
    sampling = dict(
        temperature=temperature, top_k=top_k, guidance=guidance, candidates=candidates, max_seconds=max_seconds
    )
    target = Target(out, Path("composition.wav"), force)
    wanted = Asked(*composition_task(caption, sound), prompt, examples)
    _make(wanted, target, model, sampling, structural_temperature, seed, steps)


def _make(
    wanted: Asked,
    target: Target,
    source: Path,
    sampling: dict[str, Any],
    later_temperature: float | None,
    seed: int,
    steps: int | None,
) -> None:
    from cli.results import sound_result

    to_pipe = str(target.out) == "-"
    if to_pipe and sys.stdout.isatty():
        raise UserError("a terminal plays no sound; send it to a player, as in `uniaudio speak hello -o - | aplay`")
    result = None if to_pipe else sound_result(target.out, target.usual, force=target.force)
    solved = read_examples(wanted.examples, wanted.task)
    model = load_model(source)
    if later_temperature is not None:
        sampling["stream_temperature"] = {stream.name: later_temperature for stream in model.layout.streams[1:]}
    asked = model.request_in_vocabulary(wanted.task, wanted.contents, wanted.prompt, solved)
    if result is None:
        reason = _send(model, asked, model.settings_of(asked.sentence.name, **sampling), seed, steps)
    else:
        made = model.generate_sound(asked, seed, steps, **sampling)
        reason = made.reason
        result.write_sound(made.waveform, made.sample_rate, made.provenance)
        say(f"{one_line(result.path)}  {made.seconds:.1f} s")
    if reason != "end":
        place = "-" if result is None else result.path
        complain(f"{place}: the sound is not complete ({reason}); raise --max-seconds for a longer one")


def _send(model: UniAudio, asked: Request, settings: GenerationSettings, seed: int, steps: int | None) -> Reason:
    """Sound to standard output while it is being made; when it came, to standard error."""
    from codec.audio.waveform import wav_pieces

    began = time.perf_counter()
    times = []
    stream = model.stream(asked.sentence, settings, seed, steps=steps)
    for piece in wav_pieces(stream, model.codec.sample_rate, model.provenance(asked.sentence.name, seed)):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        times.append(time.perf_counter() - began)
    seconds = stream.completion.tokens.num_samples / model.codec.sample_rate
    complain(f"-  {seconds:.1f} s; the first came after {times[0]:.2f} s, the last after {times[-1]:.2f} s")
    return stream.completion.reason
