"""Options that several verbs share, and what loading a model looks like from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codec.io import numbers
from codec.io.errors import UserError
from codec.io.hub import is_hub_id

if TYPE_CHECKING:
    from uniaudio.model import UniAudio

DEMO_MODEL = Path("runs/demo/model")  # where `make demo` leaves its model


class NumberParser:
    """Reads a number of one of the kinds of codec/io/numbers.py off the command line."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self.__name__ = numbers.kind_of(kind)[0].__name__  # what a usage line calls it

    def __call__(self, value: str | float) -> int | float:
        """The number. Raises BadParameter saying what it must be."""
        try:
            return numbers.read_number(str(value), self.kind)
        except ValueError as error:
            raise typer.BadParameter(f"it {error}, not {value!r}") from None


def number_option(kind: Any, *names: str, help: str) -> Any:
    """An option that takes a number of one of the kinds of codec/io/numbers.py; every number of every verb is one."""
    number, limits = numbers.kind_of(kind)
    metavar = "INTEGER" if number is int else "NUMBER"
    ends = f" ({limits})" if limits.low > 0 or limits.open or limits.high < numbers.LARGEST else ""
    return typer.Option(*names, parser=NumberParser(kind), metavar=metavar, help=f"{help}{ends}")


ModelOption = Annotated[
    Path, typer.Option("--model", envvar="UNIAUDIO_MODEL", help="Model folder, or hub id.", show_default=True)
]
CodecOption = Annotated[
    Path, typer.Option("--codec", envvar="UNIAUDIO_CODEC", help="Codec folder, or hub id.", show_default=True)
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there under the name of the result.")]
SeedOption = Annotated[int, number_option(numbers.Seed, "--seed", help="Same seed, same result.")]
TemperatureOption = Annotated[
    float,
    number_option(numbers.Temperature, "--temperature", help="Higher is more varied, 0 always takes the likeliest."),
]
StructuralTemperatureOption = Annotated[
    float,
    number_option(numbers.Temperature, "--structural-temperature", help="The same for the structural tokens."),
]
TopKOption = Annotated[int, number_option(numbers.Count, "--top-k", help="Choose among the k most likely ids.")]
GuidanceOption = Annotated[
    float,
    number_option(
        numbers.Guidance, "--guidance", help="How strongly the descriptive tokens follow the text; 1 is off."
    ),
]
StepsOption = Annotated[
    int | None,
    number_option(numbers.Steps, "--steps", help="Steps of the flow decoder; as many as it was made for if not given."),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", help="Instruction to the model, in place of the one that it knows for this task."),
]


def require_folder(path: Path, what: str, made_by: str, option: str = "") -> None:
    """Raise UserError where nothing is at `path` and it has not the form of a hub id; option: that names another."""
    if not path.exists() and not is_hub_id(path):
        other = f"name the folder or hub id of one with {option}" if option else "give another folder"
        raise UserError(f"{path}: no {what} there; {made_by}, or {other}")


def load_model(path: Path) -> UniAudio:
    """The model in a folder, ready to use, on the GPU where there is one."""
    require_folder(path, "model", "`make demo` in the source tree trains one", "--model or UNIAUDIO_MODEL")
    import torch
    from transformers.utils import logging

    from uniaudio.model import UniAudio

    logging.disable_progress_bar()
    return UniAudio.from_pretrained(str(path), device="cuda" if torch.cuda.is_available() else "cpu")


def load_codec(path: Path):
    """The codec in a folder, ready to use, on the GPU where there is one."""
    require_folder(
        path, "codec", "the starter's lies in recipes/starter/codec of the source tree", "--codec or UNIAUDIO_CODEC"
    )
    import torch

    from codec.tokenizer import load_tokenizer

    return load_tokenizer(str(path)).to("cuda" if torch.cuda.is_available() else "cpu")
