"""The options of the suite: what `uniaudio evaluate` and evaluation/run_suite.py take, with their ranges."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

from codec.io.errors import UserError
from codec.io.numbers import Count, Index, Range, Seed, kind_of, read_number
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import shown

LIMIT = 40  # items per task
UNTRAINED_LIMIT = 16  # items that the untrained model is asked: it never says that it has finished, so it is slow

# The ranges of the numbers, by the names of `run_suite.run`'s arguments.
NUMBERS: Mapping[str, Any] = {
    "shots": Index,
    "limit": Count,
    "untrained_limit": Index,
    "seed": Seed,
    "processes": Annotated[int, Range(0, 256)],
}


def parse_options(arguments: Sequence[str], program: str) -> dict[str, Any]:
    """The arguments of `run_suite.run` that a command line means. Raises UserError where it means none."""
    parser = _Parser(
        prog=program, allow_abbrev=False,
        description="Run evaluation suites: scores beside chance and the untrained model, and a report.",
    )  # fmt: skip

    def number(name: str) -> Callable[[str], int]:
        def read(text: str) -> int:
            try:
                return read_number(text, NUMBERS[name])
            except ValueError as error:
                raise argparse.ArgumentTypeError(f"{error}, not {shown(text)}") from error

        return read

    add = parser.add_argument
    add(
        "--model",
        help=f"model folder, or hub id (default: $UNIAUDIO_MODEL, or {STARTER_MODEL}, or none where --codec is given)",
    )
    add(
        "--suite", nargs="+", action="extend", metavar="NAME",
        help="starter (the default), few_shot, unseen, real, codec, codec_real, or YAML files",
    )  # fmt: skip
    add(
        "--shots", nargs="+", action="extend", type=number("shots"), metavar="N",
        help="numbers of solved examples (default: all that the tasks list)",
    )  # fmt: skip
    add("--limit", type=number("limit"), default=LIMIT, metavar="N", help=f"items per task (default: {LIMIT})")
    add("--out", "-o", default="runs/evaluation", help="folder to write (default: runs/evaluation)")
    add(
        "--force", action="store_true",
        help="replace the results of another evaluation in that folder; the same one is never refused",
    )  # fmt: skip
    add(
        "--store", nargs="+", action="extend",
        help="token store, or several as one (default: what the model was trained on)",
    )  # fmt: skip
    add(
        "--corpus", nargs="+", action="extend", default=[], dest="corpora", metavar="CORPUS",
        help="recordings, folders or YAML files: where those of the store have moved, or of a codec alone",
    )  # fmt: skip
    add("--codec", help="codec of the reconstruction tasks (default: the model's); without --model, it alone is asked")
    add("--untrained", metavar="OUT", help="output folder of an earlier run whose cached outputs may be used")
    add(
        "--untrained-limit", type=number("untrained_limit"), default=UNTRAINED_LIMIT, metavar="N",
        help=f"items that the untrained model answers too, 0 for none (default: {UNTRAINED_LIMIT})",
    )  # fmt: skip
    add("--seed", type=number("seed"), default=0, metavar="N", help="same seed, same results (default: 0)")
    add(
        "--processes", type=number("processes"), default=0, metavar="N",
        help="processes of the judges (default: as many as cores, four at most)",
    )  # fmt: skip
    add("--device", help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)")
    for argument in arguments:
        if argument.startswith("-") and argument.endswith("=--"):  # argparse takes the value away and gives a list
            parser.error(f"argument {argument[:-3]}: expected a value, not '--'")
    options = vars(parser.parse_args(list(arguments)))
    options["suite"] = options["suite"] or ["starter"]
    if options["model"] is None:
        options["model"] = os.environ.get("UNIAUDIO_MODEL") or (None if options["codec"] else STARTER_MODEL)
    return options


def check_numbers(**values: Any) -> None:
    """Raise UserError for a number out of its range; None stands for no limit."""
    for name, value in values.items():
        kind, limits = kind_of(NUMBERS[name])
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is None and name in ("limit", "shots"):
                continue
            problem = "must be an integer" if type(each) is not kind else limits.problem(each)
            if problem:
                raise UserError(f"--{name.replace('_', '-')} {problem}, not {shown(each)}")


def check_places(**places: Any) -> None:
    """Raise UserError for an empty name of a file or folder, which would mean the working directory."""
    for name, value in places.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and (not str(each).strip() or "\0" in str(each)):
                raise UserError(f"--{name} must name something, not {shown(str(each))}")


def find_device(name: str | None) -> str:
    """The device of that name, None for the best one. Raises UserError where this machine has none such."""
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--device must be cpu, cuda or cuda:N, not {shown(name)}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: torch finds no GPU on this machine; leave the option out, or give cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU; count from cuda:0")
    if device.type not in ("cpu", "cuda", "mps") or (device.type == "cpu" and device.index):
        raise UserError(f"--device must be cpu, cuda or cuda:N, not {shown(name)}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"--device {name}: torch finds no such device on this machine; leave the option out")
    return name


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as every other part does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (`{self.prog} --help` lists the options)")
