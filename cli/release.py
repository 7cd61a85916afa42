"""`uniaudio import-published` and `uniaudio export-published`: released weights in and out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import load_codec
from codec.io.errors import UserError
from codec.io.hub import is_hub_id
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import say

if TYPE_CHECKING:
    from codec.release.importer import Released
    from codec.release.record import PublishedFiles
    from codec.tokenizer import AudioTokenizer

# What stands in the folder of a model -> how to bring it.
REMEDIES = {"text_tokenizer": "--text-tokenizer FOLDER", "audio_tokenizer": "--codec FOLDER"}


def import_published(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write: a model with --lm, else a codec.")],
    lm: Annotated[Path | None, typer.Option("--lm", help="Checkpoint of the released language model.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="With --lm: the release's llm_config.yaml.")] = None,
    text_tokenizer: Annotated[
        Path | None, typer.Option("--text-tokenizer", help="With --lm: folder, or hub id, of its text tokenizer.")
    ] = None,
    codec: Annotated[
        Path | None,
        typer.Option(
            "--codec",
            help="Checkpoint file of the released codec; with --lm also the folder, or hub id, of a codec of ours.",
        ),
    ] = None,
    scalar: Annotated[
        Path | None,
        typer.Option("--scalar", help="With a codec file: weights of its scalar autoencoder (sqcodec.pth)."),
    ] = None,
    scalar_config: Annotated[
        Path | None, typer.Option("--scalar-config", help="With a codec file: sqcodec_config.yaml.")
    ] = None,
    music_encoder: Annotated[
        Path | None,
        typer.Option("--music-encoder", help="With a codec file that does not hold its music encoder: music_ssl.pt."),
    ] = None,
    whisper: Annotated[
        Path | None,
        typer.Option(
            "--whisper", help="With a codec file: folder, or hub id, of its Whisper. [default: openai/whisper-medium]"
        ),
    ] = None,
    wavlm: Annotated[
        Path | None,
        typer.Option(
            "--wavlm", help="With a codec file: folder, or hub id, of its WavLM. [default: microsoft/wavlm-base]"
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help="With --lm: the release's JSON file of task -> sentences, used in place of ours."
        ),
    ] = None,
    published_encoding: Annotated[
        bool,
        typer.Option(
            "--published-encoding/--own-encoding",
            help="With a codec file: repeat each clip to segments of 30 s, as published, or encode it as it is.",
        ),
    ] = True,
) -> None:
    """Turn a released language model, a released codec, or both, into a folder, without running what a pickle asks for.

    The codec alone: --codec FILE --scalar FILE --scalar-config FILE --music-encoder FILE. The language model: --lm FILE
    --config FILE, and --text-tokenizer and --codec so that somebody can talk to it.
    """
    files = {
        "--scalar": scalar,
        "--scalar-config": scalar_config,
        "--music-encoder": music_encoder,
        "--whisper": whisper,
        "--wavlm": wavlm,
    }
    _require_together(lm, config, text_tokenizer, codec, files, prompts)
    from codec.io.files import require_no_folder

    require_no_folder(out)  # before anything large is read
    lines = []
    with _libraries_elsewhere():
        released = None
        if codec is not None and codec.is_file():
            released = _released_codec(codec, files, published_encoding)
            lines += _lines_of(released, codec)
        if lm is None:
            _save_codec(released, out)
            lines.append(f"{out}  the codec of {codec}, fingerprint {released.codec.fingerprint}")
        else:
            audio, record = (released.codec, released.files) if released else _own_codec(codec)
            lines += _import_model(lm, config, text_tokenizer, audio, record, prompts, out)
    for line in lines:
        say(line)


@contextlib.contextmanager
def _libraries_elsewhere() -> Iterator[None]:
    """Standard output holds this program's lines alone: what libraries print meanwhile goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        from transformers.utils import logging

        logging.disable_progress_bar()
        yield


def _save_codec(released: Released, out: Path) -> None:
    from codec.io.files import new_folder

    with new_folder(out) as folder:
        released.codec.save_pretrained(folder)
        released.files.save(folder)


def _own_codec(codec: Path | None) -> tuple[AudioTokenizer | None, PublishedFiles | None]:
    """A codec's folder, and what it keeps of released files where it was imported."""
    from codec.release.record import PublishedFiles

    if codec is None:
        return None, None
    return load_codec(codec).cpu(), PublishedFiles.load(codec)


def _import_model(
    lm: Path,
    config: Path,
    text_tokenizer: Path | None,
    audio: AudioTokenizer | None,
    record: PublishedFiles | None,
    prompts: Path | None,
    out: Path,
) -> list[str]:
    """Import a language model with what goes with it; the lines that say what was found."""
    from lm.text_tokenizer import TextTokenizer
    from uniaudio import release
    from uniaudio.release_prompts import read_prompts, unused, used

    sentences = read_prompts(prompts) if prompts is not None else None
    text = TextTokenizer.from_pretrained(text_tokenizer) if text_tokenizer is not None else None
    found = release.import_published(lm, config, out, text, audio, record, sentences)
    left_out = f"; left out: {', '.join(found.left_out)} (not weights)" if found.left_out else ""
    lines = [f"{out}  all {found.tensors} tensors of {lm}{left_out}"]
    if sentences is not None:
        others = f"; no verb has the tasks {', '.join(unused(sentences))}" if unused(sentences) else ""
        lines.append(f"{prompts}  prompts for {', '.join(used(sentences))}{others}")
    if found.absent:
        remedies = " and ".join(REMEDIES[name] for name in found.absent)
        lines.append(
            f"{out}  not complete: without {' and '.join(found.absent)} it is a language model to read or export, but "
            f"nobody can talk to it; import again with {remedies}"
        )
    return lines


def _require_together(
    lm: Path | None,
    config: Path | None,
    text_tokenizer: Path | None,
    codec: Path | None,
    files: dict[str, Path | None],
    prompts: Path | None,
) -> None:
    """Raise UserError where options are missing or do not go with each other."""
    if lm is None and codec is None:
        raise UserError(
            "nothing to import: give --lm FILE (a released language model), --codec FILE (a released codec), or both"
        )
    if lm is not None and config is None:
        raise UserError(f"{lm}: its sizes stand in another file; give the release's llm_config.yaml with --config")
    if lm is None:
        for option, value in (("--config", config), ("--text-tokenizer", text_tokenizer), ("--prompts", prompts)):
            if value is not None:
                raise UserError(
                    f"{value}: {option} is for the language model, and there is no --lm; leave it out or give --lm FILE"
                )
        if codec.is_dir():
            raise UserError(
                f"{codec}: a folder, where the checkpoint file of the released codec is expected; give that file, or "
                "--lm FILE to import a language model with this codec"
            )
        if not codec.is_file():
            raise UserError(f"{codec}: no such file; give the checkpoint of the released codec")
    if codec is None or not codec.is_file():
        stray = next((option for option, value in files.items() if value is not None), None)
        if stray is not None and codec is None:
            raise UserError(
                f"{files[stray]}: {stray} goes with the checkpoint file of the released codec; give that with --codec"
            )
        if stray is not None:
            raise UserError(
                f"{codec}: no file, where {stray} goes with the checkpoint file of the released codec; give that file, "
                f"or leave {stray} out to take a codec's folder"
            )
    else:
        missing = [option for option in ("--scalar", "--scalar-config") if files[option] is None]
        if missing:
            raise UserError(
                f"{codec}: a released codec needs its scalar autoencoder, weights and configuration; add "
                f"{' and '.join(f'{option} FILE' for option in missing)}"
            )
        for option in ("--whisper", "--wavlm"):
            if files[option] is not None:
                _require_place(files[option], option.strip("-"), "download it from the hub")
    if text_tokenizer is not None:
        _require_place(text_tokenizer, "text tokenizer", "download it from the release")


def _require_place(path: Path, what: str, remedy: str) -> None:
    """Raise UserError where nothing is at `path` and it does not have the form of a hub id."""
    if not path.exists() and not is_hub_id(path):
        raise UserError(f"{path}: no {what} there; {remedy}, or give another folder")


def _released_codec(checkpoint: Path, files: dict[str, Path | None], published_encoding: bool) -> Released:
    """The codec of a released checkpoint and the files that came with it."""
    from codec.reasoning.config import ReasoningCodecConfig
    from codec.release.importer import codec_from_published

    experts = {}
    for name in ("whisper", "wavlm"):
        place = files[f"--{name}"]
        if place is not None:
            # The saved codec reads it from there again, whatever folder it is used in.
            experts[name] = str(place.resolve() if place.exists() else place)
    return codec_from_published(
        checkpoint,
        files["--scalar"],
        files["--scalar-config"],
        files["--music-encoder"],
        **experts,
        defaults=replace(ReasoningCodecConfig(), published_encoding=published_encoding),
    )


def _lines_of(released: Released, checkpoint: Path) -> list[str]:
    lines = []
    if released.left_out:
        lines.append(
            f"{checkpoint}  left out, as neither encoding nor decoding reads them: {', '.join(released.left_out)}"
        )
    if released.codec.config.published_encoding:
        lines.append(
            f"{checkpoint}  encodes as published: every clip is repeated to segments of 30 s, so that the shortest "
            "costs as much as half a minute (--own-encoding: other ids, as a clip alone)"
        )
    else:
        lines.append(
            f"{checkpoint}  encodes each clip as it is: other ids than the published ones, which a released language "
            "model was trained on"
        )
    return lines


def export_published(
    lm: Annotated[Path | None, typer.Option("--lm", help="Checkpoint of the language model to write.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="With --lm: its configuration to write, such as llm_config.yaml.")
    ] = None,
    codec: Annotated[Path | None, typer.Option("--codec", help="Checkpoint of the codec to write.")] = None,
    scalar: Annotated[
        Path | None, typer.Option("--scalar", help="With --codec: weights of its scalar autoencoder to write.")
    ] = None,
    scalar_config: Annotated[
        Path | None, typer.Option("--scalar-config", help="With --codec: sqcodec_config.yaml to write.")
    ] = None,
    music_encoder: Annotated[
        Path | None,
        typer.Option("--music-encoder", help="With --codec: music encoder to write, where it has its own file."),
    ] = None,
    model: Annotated[
        Path,
        typer.Option("--model", envvar="UNIAUDIO_MODEL", help="Folder of a model, or with --codec alone of a codec."),
    ] = Path(STARTER_MODEL),
) -> None:
    """Write a model's language model, its codec, or both, in the published form, with the options of import-published.

    The language model: --lm FILE --config FILE. The codec: --codec FILE --scalar FILE --scalar-config FILE, and
    --music-encoder FILE where the release has one. All name files to write.
    """
    language = {"--lm": lm, "--config": config}
    audio = {"--codec": codec, "--scalar": scalar, "--scalar-config": scalar_config, "--music-encoder": music_encoder}
    _require_places(language, audio)
    from codec.io.files import require_free

    for place in (*language.values(), *audio.values()):
        if place is not None:
            require_free(place)  # before anything large is read
    lines = []
    with _libraries_elsewhere():
        from uniaudio import release

        if codec is not None:
            places = {
                option.strip("-").replace("-", "_"): place for option, place in audio.items() if place is not None
            }
            counts = release.export_codec(model, places)
            lines += [f"{places[name]}  {count} tensors" for name, count in counts.items()]
            lines.append(f"{scalar_config}  sizes of the scalar autoencoder")
        if lm is not None:
            tensors = release.export_published(model, lm, config)
            lines += [f"{lm}  {tensors} tensors, no training state", f"{config}  sizes, cards and special ids"]
    for line in lines:
        say(line)


def _require_places(language: dict[str, Path | None], audio: dict[str, Path | None]) -> None:
    """Raise UserError where it is not said what to write, or where all of it."""
    for needed, options in (("--lm", language), ("--codec", audio)):
        for option, place in options.items():
            if options[needed] is None and place is not None:
                raise UserError(f"{place}: {option} goes with {needed}; give {needed} FILE too, or leave it out")
            if options[needed] is not None and place is None and option != "--music-encoder":
                raise UserError(f"{options[needed]}: {needed} goes with {option}; say where to write that, too")
    if language["--lm"] is None and audio["--codec"] is None:
        raise UserError(
            "nothing to export: give --lm FILE --config FILE (the language model), --codec FILE --scalar FILE "
            "--scalar-config FILE (the codec), or both"
        )
    places = [os.path.abspath(place) for place in (*language.values(), *audio.values()) if place is not None]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: named for two files; give each a name of its own")
