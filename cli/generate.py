"""Verbs that make sound: `uniaudio speak` and `uniaudio compose`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from cli.options import (
    DEMO_MODEL,
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
)
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.terminal import complain, one_line, say

if TYPE_CHECKING:
    from auditory_sentences.builders.tasks import Request
    from lm.generation.sampling import GenerationSettings
    from uniaudio.model import Completion, UniAudio

OUT_HELP = "Sound file to write (.wav or .flac), or - to send a WAV to a pipe while it is being made; if not given, {}."
SpeechOption = Annotated[
    Path | None, typer.Option("--out", "-o", help=OUT_HELP.format("speech.wav or the next free name"))
]
CompositionOption = Annotated[
    Path | None, typer.Option("--out", "-o", help=OUT_HELP.format("composition.wav or the next free name"))
]
SecondsOption = Annotated[float, number_option(numbers.Length, "--max-seconds", help="Longest sound, in seconds.")]


class Target(NamedTuple):
    """Where a sound goes: what was asked for, the usual name where nothing was, and whether that may be replaced."""

    out: Path | None
    usual: Path
    force: bool


@dataclass(frozen=True)
class Sampling:
    """How audio is drawn, as the command line says it."""

    temperature: float
    later_temperature: float  # of the streams after the first
    top_k: int
    guidance: float
    max_seconds: float

    def settings(self, model: UniAudio) -> GenerationSettings:
        """For the streams of a model. Later streams follow the first, which has followed the text: without guidance."""
        from lm.generation.sampling import GenerationSettings

        return GenerationSettings(
            model.layout.rows_in(self.max_seconds),
            self.temperature,
            self.top_k,
            self.guidance,
            stream_temperature={stream.name: self.later_temperature for stream in model.layout.streams[1:]},
            stream_guidance=model.unguided_streams,
            max_seconds=self.max_seconds,
        )


def speak(
    text: Annotated[str, typer.Argument(help="Words to say.")],
    out: SpeechOption = None,
    voice: Annotated[str, typer.Option("--voice", help="Description of the voice, in words.")] = "",
    model: ModelOption = DEMO_MODEL,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 0.2,
    structural_temperature: StructuralTemperatureOption = 0.2,
    top_k: TopKOption = 30,
    guidance: GuidanceOption = 2.0,
    steps: StepsOption = None,
    max_seconds: SecondsOption = 15.0,
    prompt: PromptOption = None,
    force: ForceOption = False,
) -> None:
    """Say some words."""
    if not text.strip():
        raise UserError("there is nothing to say: the text is empty")
    task, contents = ("instruct_tts", {"caption": voice, "text": text}) if voice else ("tts", {"text": text})
    sampling = Sampling(temperature, structural_temperature, top_k, guidance, max_seconds)
    _make(task, contents, prompt, Target(out, Path("speech.wav"), force), model, sampling, seed, steps)


def compose(
    caption: Annotated[str, typer.Argument(help="What it should sound like.")],
    out: CompositionOption = None,
    sound: Annotated[bool, typer.Option("--sound", help="A sound rather than music.")] = False,
    model: ModelOption = DEMO_MODEL,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 0.5,
    structural_temperature: StructuralTemperatureOption = 0.5,
    top_k: TopKOption = 30,
    guidance: GuidanceOption = 2.0,
    steps: StepsOption = None,
    max_seconds: SecondsOption = 15.0,
    prompt: PromptOption = None,
    force: ForceOption = False,
) -> None:
    """Make music, or a sound, from a description."""
    if not caption.strip():
        raise UserError("there is nothing to make: the description is empty")
    task, contents = "sound_generation" if sound else "music_generation", {"caption": caption}
    sampling = Sampling(temperature, structural_temperature, top_k, guidance, max_seconds)
    _make(task, contents, prompt, Target(out, Path("composition.wav"), force), model, sampling, seed, steps)


def _make(
    task: str,
    contents: dict[str, str],
    prompt: str | None,
    target: Target,
    model_folder: Path,
    sampling: Sampling,
    seed: int,
    steps: int | None,
) -> None:
    from auditory_sentences.builders.tasks import in_vocabulary
    from cli.results import sound_result

    to_pipe = str(target.out) == "-"
    if to_pipe and sys.stdout.isatty():
        raise UserError("a terminal plays no sound; send it to a player, as in `uniaudio speak hello -o - | aplay`")
    result = None if to_pipe else sound_result(target.out, target.usual, force=target.force)
    model = load_model(model_folder)
    settings = sampling.settings(model)
    asked = in_vocabulary(model.request(task, prompt, **contents), model.text_tokenizer)
    if to_pipe:
        made = _send(model, asked, settings, seed, steps)
    else:
        made = model.complete([asked.sentence], asked.role, settings, [seed])[0]
    if made.segment is None:
        raise UserError(f"the model made no sound ({made.reason}); try another --seed, or a longer --max-seconds")
    if result is not None:
        tokens = made.segment.content
        rate = model.codec.sample_rate
        result.write_sound(model.waveform(tokens, steps=steps, seed=seed), rate)
        say(f"{one_line(result.path)}  {tokens.num_samples / rate:.1f} s")
    if made.reason != "end":
        place = "-" if result is None else result.path
        complain(f"{place}: the sound is not complete ({made.reason}); raise --max-seconds to let it go on")


def _send(model: UniAudio, asked: Request, settings: GenerationSettings, seed: int, steps: int | None) -> Completion:
    """Sound to standard output while it is being made; when it came, to standard error."""
    from codec.audio.waveform import wav_pieces

    began = time.perf_counter()
    times = []
    stream = model.stream(asked.sentence, settings, seed, steps=steps)
    for piece in wav_pieces(stream, model.codec.sample_rate):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        times.append(time.perf_counter() - began)
    if times:
        seconds = stream.completion.segment.content.num_samples / model.codec.sample_rate
        complain(f"-  {seconds:.1f} s; the first came after {times[0]:.2f} s, the last after {times[-1]:.2f} s")
    return stream.completion
