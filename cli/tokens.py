"""Verbs between waveforms and tokens: `uniaudio tokenize` and `uniaudio detokenize`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from cli.options import CodecOption, ForceOption, SeedOption, StepsOption, load_codec, number_option
from codec.io import numbers
from codec.io.errors import UserError
from codec.io.shipped import STARTER_CODEC
from codec.io.terminal import one_line, say


def tokenize(
    audio: Annotated[Path, typer.Argument(help="Sound file; any rate, any channels, any length.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Token file; if not given, AUDIO.safetensors or a free name.")
    ] = None,
    codec: CodecOption = Path(STARTER_CODEC),
    force: ForceOption = False,
) -> None:
    """Turn a sound file into a token file."""
    from cli.results import token_result
    from codec.audio.waveform import audio_length, iterate_audio

    result = token_result(out, audio.parent / f"{audio.stem}.safetensors", [audio], force)
    tokenizer = load_codec(codec)
    length = audio_length(audio, tokenizer.sample_rate)
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("tokenize", total=length)
        blocks = iterate_audio(audio, sample_rate=tokenizer.sample_rate)
        tokens = tokenizer.encode_blocks(blocks, length, partial(bar.advance, task))
    result.write_tokens(tokens)
    frames = " and ".join(f"{ids.shape[1]} {name} frames of {len(ids)}" for name, ids in tokens.streams.items())
    say(f"{one_line(result.path)}  {length / tokenizer.sample_rate:.2f} s, {frames}")


def detokenize(
    tokens: Annotated[Path, typer.Argument(help="Token file that `uniaudio tokenize` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Sound file; if not given, TOKENS.decoded.wav or a free name."),
    ] = None,
    codec: CodecOption = Path(STARTER_CODEC),
    steps: StepsOption = None,
    guidance: Annotated[
        float | None,
        number_option(numbers.Guidance, "--guidance", help="Of the flow decoder, 1 is off; its own if not given."),
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Turn a token file back into sound."""
    from cli.results import sound_result
    from codec.tokens import AudioTokens

    result = sound_result(out, tokens.parent / f"{tokens.stem}.decoded.wav", [tokens], force)
    ids = AudioTokens.load(tokens)
    tokenizer = load_codec(codec)
    if ids.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{tokens}: made by the tokenizer {ids.fingerprint}, but {codec} is {tokenizer.fingerprint}; "
            "give the codec that made it with --codec"
        )
    tokenizer.require_own(ids, str(tokens))
    waveform = tokenizer.decode([ids], steps=steps, seed=seed, guidance=guidance)[0]
    result.write_sound(waveform, tokenizer.sample_rate)
    say(f"{one_line(result.path)}  {ids.num_samples / tokenizer.sample_rate:.2f} s")
