"""From what people write after --codec to a codec under test."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated

from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.numbers import Range, read_number
from codec.io.terminal import shown
from codec.pretrained import read_config
from codec.tokenizer import load_tokenizer
from evaluation.codecs.base import TestedCodec

CLASSICAL = {"opus": ("evaluation.codecs.opus", "Opus"), "codec2": ("evaluation.codecs.codec2", "Codec2")}
# model_type in config.json of a codec that transformers saved -> its adapter (X-Codec is one of our tokenizers)
LIBRARY = {
    "dac": ("evaluation.codecs.dac", "Dac"),
    "encodec": ("evaluation.codecs.encodec", "Encodec"),
    "mimi": ("evaluation.codecs.mimi", "Mimi"),
}

KiloBits = Annotated[float, Range(0, 10_000, open=True)]


def open_codec(text: str | Path, device: str = "cpu", name: str = "") -> TestedCodec:
    """The codec that a text names.

    Args:
        text: A folder, hub id or shipped name; opus@KBPS or codec2@KBPS; a folder or hub id with @KBPS for a codec of
            transformers at that bit rate.
        device: Where a learned codec runs.
        name: As results call it; "" for the text's last two parts.

    Raises:
        UserError: There is no such codec, or it has no such bit rate.
    """
    source, kbps = _parts(str(text))
    name = name or short_name(text)
    if source in CLASSICAL:
        if kbps is None:
            raise UserError(
                f"{source}: give its bit rate in kb/s too, such as {source}@{6 if source == 'opus' else 1.2}"
            )
        module, kind = CLASSICAL[source]
        return getattr(import_module(module), kind)(kbps)
    folder = local_folder(source, "codec", option="--codec")
    values = read_config(folder, "codec")
    known = LIBRARY.get(str(values.get("model_type"))) if "tokenizer_type" not in values else None
    if known:
        return getattr(import_module(known[0]), known[1])(name, folder, kbps, device)
    inside = folder / "audio_tokenizer"
    if "tokenizer_type" not in values and inside.is_dir():
        raise UserError(f"{source}: is a model, not a codec; its codec is {inside}, which --codec takes")
    from evaluation.codecs.own import OwnCodec, at_bit_rate

    tokenizer = load_tokenizer(folder)
    return OwnCodec(name, (tokenizer if kbps is None else at_bit_rate(tokenizer, kbps)).to(device))


def open_codecs(texts: Sequence[str | Path], device: str = "cpu") -> list[TestedCodec]:
    """The same for several, under names that differ.

    Raises:
        UserError: One is named twice.
    """
    short = [short_name(text) for text in texts]
    names = [one if short.count(one) == 1 else str(text) for one, text in zip(short, texts, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--codec names {shown(twice)} twice; each codec is evaluated once")
    return [open_codec(text, device, name) for text, name in zip(texts, names, strict=True)]


def short_name(text: str | Path) -> str:
    """The last two parts of a path; a hub id or a name as it stands."""
    return "/".join(part for part in Path(text).parts[-2:] if part != "/")


def _parts(text: str) -> tuple[str, float | None]:
    """Source and kb/s of SOURCE@KBPS; an @ in the name of a folder that is there belongs to it."""
    source, at, rate = text.rpartition("@")
    if not at or Path(text).is_dir():
        return text, None
    try:
        return source, float(read_number(rate, KiloBits))
    except ValueError as error:
        raise UserError(f"{text}: behind the @ stands a bit rate in kb/s, which {error}, not {shown(rate)}") from error
