"""Verbs that make sound: `uniaudio speak` and `uniaudio compose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEMO_MODEL,
    GuidanceOption,
    ModelOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    load_model,
)
from codec.errors import UserError

if TYPE_CHECKING:
    from auditory_sentences.tasks import Request

OutOption = Annotated[Path, typer.Option("--out", "-o", help="Sound file to write (.wav or .flac).")]
SecondsOption = Annotated[float, typer.Option("--max-seconds", min=0.2, help="Longest sound.")]


def speak(
    text: Annotated[str, typer.Argument(help="Words to say.")],
    out: OutOption = Path("speech.wav"),
    voice: Annotated[str, typer.Option("--voice", help="Description of the voice, in words.")] = "",
    model: ModelOption = DEMO_MODEL,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 0.7,
    top_k: TopKOption = 50,
    guidance: GuidanceOption = 1.0,
    steps: StepsOption = 10,
    max_seconds: SecondsOption = 15.0,
) -> None:
    """Say some words."""
    from auditory_sentences.tasks import request

    if not text.strip():
        raise UserError("there is nothing to say: the text is empty")
    asked = request("instruct_tts", caption=voice, text=text) if voice else request("tts", text=text)
    _make(asked, out, model, seed, temperature, top_k, guidance, steps, max_seconds)


def compose(
    caption: Annotated[str, typer.Argument(help="What it should sound like.")],
    out: OutOption = Path("composition.wav"),
    sound: Annotated[bool, typer.Option("--sound", help="A sound rather than music.")] = False,
    model: ModelOption = DEMO_MODEL,
    seed: SeedOption = 0,
    temperature: TemperatureOption = 0.7,
    top_k: TopKOption = 50,
    guidance: GuidanceOption = 1.0,
    steps: StepsOption = 10,
    max_seconds: SecondsOption = 15.0,
) -> None:
    """Make music, or a sound, from a description."""
    from auditory_sentences.tasks import request

    if not caption.strip():
        raise UserError("there is nothing to make: the description is empty")
    asked = request("sound_generation" if sound else "music_generation", caption=caption)
    _make(asked, out, model, seed, temperature, top_k, guidance, steps, max_seconds)


def _make(
    asked: Request,
    out: Path,
    model_folder: Path,
    seed: int,
    temperature: float,
    top_k: int,
    guidance: float,
    steps: int,
    max_seconds: float,
) -> None:
    from codec.audio import write_audio
    from codec.tokens import DESCRIPTIVE_RATE, STRUCTURAL_RATE
    from lm.generation import GenerationSettings

    model = load_model(model_folder)
    max_rows = round(max_seconds * (DESCRIPTIVE_RATE + STRUCTURAL_RATE)) + 6  # frames, and two edges of each kind
    settings = GenerationSettings(max_rows, temperature, top_k, guidance)
    made = model.complete([asked.sentence], asked.role, settings, [seed])[0]
    if made.segment is None:
        raise UserError(f"the model made no sound ({made.reason}); try another --seed, or a longer --max-seconds")
    tokens = made.segment.content
    write_audio(out, model.waveform(tokens, steps=steps, seed=seed))
    print(f"{out}  {tokens.seconds:.1f} s")
    if made.reason != "end":
        typer.echo(f"{out}: the sound is not complete ({made.reason}); raise --max-seconds to let it go on", err=True)
