"""Options that several verbs share, and what loading a model looks like from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from codec.errors import UserError

if TYPE_CHECKING:
    from auditory_sentences.uniaudio import UniAudio

DEMO_MODEL = Path("runs/demo/model")  # where `make demo` leaves its model

ModelOption = Annotated[
    Path, typer.Option("--model", envvar="UNIAUDIO_MODEL", help="Model folder, or hub id.", show_default=True)
]
CodecOption = Annotated[
    Path, typer.Option("--codec", envvar="UNIAUDIO_CODEC", help="Codec folder, or hub id.", show_default=True)
]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same result.")]
TemperatureOption = Annotated[
    float, typer.Option("--temperature", min=0.0, help="Higher is more varied, 0 always takes the likeliest.")
]
StructuralTemperatureOption = Annotated[
    float, typer.Option("--structural-temperature", min=0.0, help="The same for the structural tokens.")
]
TopKOption = Annotated[int, typer.Option("--top-k", min=1, help="Choose among the k most likely ids.")]
GuidanceOption = Annotated[
    float, typer.Option("--guidance", min=1.0, help="How strongly the descriptive tokens follow the text; 1 is off.")
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Steps of the flow decoder; as many as it was made for if not given."),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", help="Instruction to the model, in place of the one that it knows for this task."),
]


def require_folder(path: Path, what: str, made_by: str) -> None:
    """Raise UserError where `path` looks like a path but is not there."""
    looks_like_hub_id = not path.is_absolute() and len(path.parts) == 2 and not path.parts[0].startswith(("runs", "."))
    if not path.exists() and not looks_like_hub_id:
        raise UserError(f"{path}: no {what} there; {made_by}, or give another folder")


def load_model(path: Path) -> UniAudio:
    """The model in a folder, ready to use, on the GPU where there is one."""
    require_folder(path, "model", "run `make demo` to train one")
    import torch
    from transformers.utils import logging

    from auditory_sentences.uniaudio import UniAudio

    logging.disable_progress_bar()
    return UniAudio.from_pretrained(str(path), device="cuda" if torch.cuda.is_available() else "cpu")


def load_codec(path: Path):
    """The codec in a folder, ready to use, on the GPU where there is one."""
    require_folder(path, "codec", "the starter's lies in recipes/starter/codec")
    import torch

    from codec.tokenizer import load_tokenizer

    return load_tokenizer(str(path)).to("cuda" if torch.cuda.is_available() else "cpu")
