"""Verbs between waveforms and tokens: `uniaudio tokenize` and `uniaudio detokenize`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from cli.options import CodecOption, SeedOption, StepsOption, load_codec
from codec.errors import UserError

STARTER_CODEC = Path("recipes/starter/codec")


def tokenize(
    audio: Annotated[Path, typer.Argument(help="Sound file; any rate, any channels, any length.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Token file; AUDIO.safetensors if not given.")] = None,
    codec: CodecOption = STARTER_CODEC,
) -> None:
    """Turn a sound file into a token file."""
    from codec.audio import audio_length, iterate_audio

    tokenizer = load_codec(codec)
    length = audio_length(audio)
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("tokenize", total=length)
        tokens = tokenizer.encode_blocks(iterate_audio(audio), length, partial(bar.advance, task))
    out = out or audio.with_suffix(".safetensors")
    out.parent.mkdir(parents=True, exist_ok=True)
    tokens.save(out)
    frames = f"{tokens.descriptive.shape[1]} descriptive and {tokens.structural.shape[1]} structural frames of 8"
    print(f"{out}  {tokens.seconds:.2f} s, {frames}")


def detokenize(
    tokens: Annotated[Path, typer.Argument(help="Token file that `uniaudio tokenize` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Sound file; TOKENS.wav if not given.")] = None,
    codec: CodecOption = STARTER_CODEC,
    steps: StepsOption = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", min=1.0, help="Of the flow decoder, 1 is off; its own if not given."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Turn a token file back into sound."""
    from codec.audio import write_audio
    from codec.tokens import AudioTokens

    ids = AudioTokens.load(tokens)
    tokenizer = load_codec(codec)
    if ids.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{tokens}: made by the tokenizer {ids.fingerprint}, but {codec} is {tokenizer.fingerprint}; "
            "give the codec that made it with --codec"
        )
    ids.require_codes(tokenizer.codes, str(tokens))
    waveform = tokenizer.decode([ids], steps=steps, seed=seed, guidance=guidance)[0]
    out = out or tokens.with_suffix(".wav")
    write_audio(out, waveform, inputs=[tokens])
    print(f"{out}  {ids.seconds:.2f} s")
