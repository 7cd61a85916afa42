"""`uniaudio import-published` and `uniaudio export-published`: released weights in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEMO_MODEL, ModelOption, load_codec, require_folder

# What stands in the folder of a model -> how to bring it.
REMEDIES = {"text_tokenizer": "--text-tokenizer FOLDER", "audio_tokenizer": "--codec FOLDER"}


def import_published(
    lm: Annotated[Path, typer.Option("--lm", help="Checkpoint of the released language model.")],
    config: Annotated[Path, typer.Option("--config", help="The release's llm_config.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model folder to write.")],
    text_tokenizer: Annotated[
        Path | None, typer.Option("--text-tokenizer", help="Folder, or hub id, of the model's text tokenizer.")
    ] = None,
    codec: Annotated[Path | None, typer.Option("--codec", help="Folder, or hub id, of the model's codec.")] = None,
) -> None:
    """Turn a released language model into a model folder, without running anything that its pickle asks for."""
    if text_tokenizer is not None:
        require_folder(text_tokenizer, "text tokenizer", "download it from the release")
    from transformers.utils import logging

    from auditory_sentences import published_model
    from lm.text_tokenizer import TextTokenizer

    logging.disable_progress_bar()
    found = published_model.import_published(
        lm,
        config,
        out,
        TextTokenizer.from_pretrained(text_tokenizer) if text_tokenizer is not None else None,
        load_codec(codec).cpu() if codec is not None else None,
    )
    left_out = f"; left out: {', '.join(found.left_out)} (not weights)" if found.left_out else ""
    print(f"{out}  all {found.tensors} tensors of {lm}{left_out}")
    if found.absent:
        remedies = " and ".join(REMEDIES[name] for name in found.absent)
        print(
            f"{out}  not complete: without {' and '.join(found.absent)} it is a language model to read or export, but "
            f"nobody can talk to it; import again with {remedies}"
        )


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
