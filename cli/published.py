"""`uniaudio import-published` and `uniaudio export-published`: released weights in and out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEMO_MODEL, ModelOption, load_codec, require_folder
from codec.errors import UserError

if TYPE_CHECKING:
    from codec.reasoning_codec import ReasoningCodec

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
    _require_together(lm, config, text_tokenizer, codec, files)
    from transformers.utils import logging

    from auditory_sentences import published_model
    from lm.text_tokenizer import TextTokenizer

    logging.disable_progress_bar()
    published_model.require_free(out)  # before anything large is read
    if lm is None:
        imported = _released_codec(codec, files)
        with published_model.new_folder(out) as folder:
            imported.save_pretrained(folder)
        print(f"{out}  the codec of {codec}, fingerprint {imported.fingerprint}")
        return
    text = TextTokenizer.from_pretrained(text_tokenizer) if text_tokenizer is not None else None
    audio = None
    if codec is not None:
        audio = _released_codec(codec, files) if codec.is_file() else load_codec(codec).cpu()
    found = published_model.import_published(lm, config, out, text, audio)
    left_out = f"; left out: {', '.join(found.left_out)} (not weights)" if found.left_out else ""
    print(f"{out}  all {found.tensors} tensors of {lm}{left_out}")
    if found.absent:
        remedies = " and ".join(REMEDIES[name] for name in found.absent)
        print(
            f"{out}  not complete: without {' and '.join(found.absent)} it is a language model to read or export, but "
            f"nobody can talk to it; import again with {remedies}"
        )


def _require_together(
    lm: Path | None,
    config: Path | None,
    text_tokenizer: Path | None,
    codec: Path | None,
    files: dict[str, Path | None],
) -> None:
    """Raise UserError where options are missing or do not go with each other."""
    if lm is None and codec is None:
        raise UserError(
            "nothing to import: give --lm FILE (a released language model), --codec FILE (a released codec), or both"
        )
    if lm is not None and config is None:
        raise UserError(f"{lm}: its sizes stand in another file; give the release's llm_config.yaml with --config")
    if lm is None:
        for option, value in (("--config", config), ("--text-tokenizer", text_tokenizer)):
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
                require_folder(files[option], option.strip("-"), "download it from the hub")
    if text_tokenizer is not None:
        require_folder(text_tokenizer, "text tokenizer", "download it from the release")


def _released_codec(checkpoint: Path, files: dict[str, Path | None]) -> ReasoningCodec:
    """The codec of a released checkpoint and the files that came with it."""
    from codec.published import codec_from_published

    experts = {}
    for name in ("whisper", "wavlm"):
        place = files[f"--{name}"]
        if place is not None:
            # The saved codec reads it from there again, whatever folder it is used in.
            experts[name] = str(place.resolve() if place.exists() else place)
    codec, left_out = codec_from_published(
        checkpoint, files["--scalar"], files["--scalar-config"], files["--music-encoder"], **experts
    )
    if left_out:
        print(f"{checkpoint}  left out, as neither encoding nor decoding reads them: {', '.join(left_out)}")
    return codec


def export_published(
    lm: Annotated[Path, typer.Option("--lm", help="Checkpoint file to write.")],
    config: Annotated[Path, typer.Option("--config", help="Configuration file to write, for example llm_config.yaml.")],
    model: ModelOption = DEMO_MODEL,
) -> None:
    """Write a model's language model in the published form: checkpoint and llm_config.yaml."""
    from transformers.utils import logging

    from auditory_sentences import published_model

    logging.disable_progress_bar()
    tensors = published_model.export_published(model, lm, config)
    print(f"{lm}  {tensors} tensors, no training state\n{config}  sizes, cards and special ids")
