"""Options that several verbs share, and what loading a model looks like from the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codec.io import numbers
from codec.io.hub import local_folder
from lm.generation.settings import Candidates

if TYPE_CHECKING:
    from codec.tokenizer import AudioTokenizer
    from uniaudio.model import UniAudio


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
    Path, typer.Option("--model", envvar="UNIAUDIO_MODEL", help="Model: a folder, a shipped name, or a hub id.")
]
CodecOption = Annotated[
    Path, typer.Option("--codec", envvar="UNIAUDIO_CODEC", help="Codec: a folder, a shipped name, or a hub id.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there under the name of the result.")]
SeedOption = Annotated[int, number_option(numbers.Seed, "--seed", help="Same seed, same result.")]
OWN = " The model's own for the task if not given."
TemperatureOption = Annotated[
    float | None,
    number_option(
        numbers.Temperature, "--temperature", help="Higher is more varied, 0 always takes the likeliest." + OWN
    ),
]
StructuralTemperatureOption = Annotated[
    float | None,
    number_option(
        numbers.Temperature, "--structural-temperature", help="The same for the structural tokens; as for the others."
    ),
]
TopKOption = Annotated[
    int | None, number_option(numbers.Count, "--top-k", help="Choose among the k most likely ids." + OWN)
]
GuidanceOption = Annotated[
    float | None,
    number_option(
        numbers.Guidance, "--guidance", help="How strongly the descriptive tokens follow the text; 1 is off." + OWN
    ),
]
CandidatesOption = Annotated[
    int | None,
    number_option(
        Candidates, "--candidates", help="Sounds to make, of which the model keeps the one that it understands best."
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

ExamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--examples",
        help="Folder of solved examples, shown to the model first: recordings and examples.jsonl or .csv, a row each.",
    ),
]


def read_examples(place: Path | None, task: str) -> Sequence[Mapping[str, Any]]:
    """The solved examples of a task in a folder, every row of them checked; none where no folder is named."""
    if place is None:
        return ()
    from auditory_sentences.builders.tasks import find_task
    from auditory_sentences.corpora import examples

    return examples.read_examples(place, find_task(task))


def load_model(source: Path) -> UniAudio:
    """A model ready to use, on the GPU where there is one."""
    folder = local_folder(source, "model", option="--model or UNIAUDIO_MODEL")
    from transformers.utils import logging

    import uniaudio

    logging.disable_progress_bar()
    return uniaudio.load(folder)


def load_codec(source: Path) -> AudioTokenizer:
    """A codec ready to use, on the GPU where there is one."""
    import torch

    from codec.pretrained import CONFIG_FILE, WEIGHTS_FILE
    from codec.tokenizer import load_tokenizer

    folder = local_folder(source, "codec", (CONFIG_FILE, WEIGHTS_FILE), "--codec or UNIAUDIO_CODEC")
    return load_tokenizer(folder).to("cuda" if torch.cuda.is_available() else "cpu")
