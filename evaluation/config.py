"""What one evaluation is: the fields of a dataclass, which are also the options of the command line."""

from __future__ import annotations

import argparse
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NoReturn

from codec.field_help import field_comments
from codec.io.errors import UserError
from codec.io.numbers import Count, Index, Range, Seed, kind_of, read_number
from codec.io.shipped import STARTER_MODEL
from codec.io.terminal import shown
from lm.generation.settings import Candidates


@dataclass(frozen=True)
class EvaluationConfig:
    """One evaluation: what is evaluated, on what, and where the results go.

    Raises:
        UserError: A number is out of its range, or the name of a file or folder is empty.
    """

    # model folder, or hub id (default: $UNIAUDIO_MODEL, or starter/model, or none where --codec is given)
    model: str | Path | None = None
    # starter, few_shot, unseen, real, text, codec, codec_reconstruction, codec_tokens, codec_real, codec_dev,
    # paper_seen, paper_unseen, paper_few_shot, paper_codec, or YAML files (default: starter)
    suite: tuple[str | Path, ...] = ("starter",)
    # numbers of solved examples (default: all that the tasks list)
    shots: tuple[Index, ...] | None = None
    # items per task (default: 40)
    limit: Count | None = 40
    # folder to write: an empty one, or that of the same evaluation (default: runs/evaluation)
    out: str | Path = "runs/evaluation"
    # replace the results of another evaluation in that folder; the same one is never refused
    force: bool = False
    # token store, or several as one (default: what the model was trained on)
    store: tuple[str | Path, ...] | None = None
    # recordings, folders or YAML files: where those of the store have moved, or of a codec alone; for tasks with a
    # data set of their own what stands in the place of the hub, NAME=FOLDER or a folder of that name
    corpus: tuple[str | Path, ...] = ()
    # codecs of the tasks of codecs, side by side (default: the model's); without --model, they alone are
    # evaluated. Folders or hub ids, of ours or of DAC, EnCodec, Mimi and X-Codec in transformers, with @KBPS for fewer
    # codebooks; opus@6 to opus@256; codec2@0.7 to codec2@3.2
    codec: tuple[str | Path, ...] = ()
    # text model beside which the suite text sets the model, the one it grew from: folder or hub id (default: none)
    text_model: str | Path | None = None
    # tasks of lm-eval in the place of a suite's: names, or one folder of their YAML files
    tasks: tuple[str | Path, ...] = ()
    # Whisper model that transcribes, folder or hub id; none that is part of the codec (default: pocketsphinx)
    recogniser: str | Path | None = None
    # folder of a YAMNet with 521 classes, yamnet.onnx, that says what a sound is (default: no such scores)
    tagger: str | Path | None = None
    # CLAP model that compares a sound with its caption, folder or hub id (default: no such scores)
    clap: str | Path | None = None
    # output folder of an earlier run whose cached outputs may be used
    untrained: str | Path | None = None
    # items that the untrained model answers too, 0 for none; it never ends an answer, so it is slow (default: 16)
    untrained_limit: Index = 16
    # sounds made for each request that is told in words, of which the model keeps the one that it understands best
    # (default: 1)
    candidates: Candidates = 1
    # same seed, same results (default: 0)
    seed: Seed = 0
    # processes of the judges (default: as many as cores, four at most)
    processes: Annotated[int, Range(0, 256)] = 0
    # cpu, cuda, cuda:1, ... (default: a GPU where there is one)
    device: str | None = None

    def __post_init__(self) -> None:
        for name, option in options().items():
            value = getattr(self, name)
            if value is None and option.optional:
                continue
            values = tuple(value) if isinstance(value, list | tuple) else (value,)
            if option.several:
                object.__setattr__(self, name, values)
            for each in values:
                if problem := option.problem(each):
                    raise UserError(f"{option.flag} {problem}, not {shown(each)}")


@dataclass(frozen=True)
class Option:
    """A field of the configuration as an option of the command line."""

    # how it is written, such as --untrained-limit
    flag: str
    # a number's kind (codec/io/numbers.py), bool, or str for everything else
    kind: Any
    # whether it takes several values
    several: bool
    # whether it may be None
    optional: bool
    # one line for --help
    help: str

    @property
    def is_number(self) -> bool:
        return typing.get_origin(self.kind) is Annotated

    def problem(self, value: Any) -> str:
        """What is wrong with a value of it, "must ..."; "" where nothing is."""
        if self.is_number:
            number, limits = kind_of(self.kind)
            return limits.problem(value) if type(value) is number else "must be an integer"
        if self.kind is str and self.flag != "--device" and (not str(value).strip() or "\0" in str(value)):
            return "must name something"  # an empty name would mean the working directory
        return ""

    def read(self, text: str) -> Any:
        """A value as it is written on the command line."""
        if not self.is_number:
            return text
        try:
            return read_number(text, self.kind)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error}, not {shown(text)}") from error


@cache
def options() -> Mapping[str, Option]:
    """Name of a field of the configuration -> its option."""
    hints = typing.get_type_hints(EvaluationConfig, include_extras=True)
    comments = field_comments(EvaluationConfig)
    return {name: _option(name, hint, comments[name]) for name, hint in hints.items()}


def parse_config(arguments: Sequence[str], program: str) -> EvaluationConfig:
    """The evaluation that a command line means.

    Args:
        arguments: The options, as people write them.
        program: Name of the command in usage lines.

    Raises:
        UserError: An option is unknown, lacks a value or is out of its range.
    """
    parser = Parser(
        prog=program, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        description="Run evaluation suites: scores beside chance and the untrained model, and a report.",
        epilog=f"Finished evaluations: `{program} compare A B` tells what differs, `{program} average A1 A2 A3` the "
        "mean over runs.",
    )  # fmt: skip
    for name, option in options().items():
        flags = (option.flag, "-o") if name == "out" else (option.flag,)
        if option.kind is bool:
            parser.add_argument(*flags, action="store_true", help=option.help)
            continue
        many: dict[str, Any] = {"nargs": "+", "action": "extend"} if option.several else {}
        metavar = "N" if option.is_number else name.upper()
        parser.add_argument(*flags, type=option.read, metavar=metavar, help=option.help.replace("%", "%%"), **many)
    for argument in arguments:
        if argument.startswith("-") and argument.endswith("=--"):  # argparse takes the value away and gives a list
            parser.error(f"argument {argument[:-3]}: expected a value, not '--'")
    values = vars(parser.parse_args(list(arguments)))
    if "model" not in values:
        values["model"] = os.environ.get("UNIAUDIO_MODEL") or (None if "codec" in values else STARTER_MODEL)
    return EvaluationConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def find_device(name: str | None) -> str:
    """The device of that name, None for the best one.

    Raises:
        UserError: This machine has none such.
    """
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


def _option(name: str, hint: Any, comment: str) -> Option:
    optional, several = False, False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        optional = type(None) in members
        (hint, *_) = [member for member in members if member is not type(None)]
    if typing.get_origin(hint) is tuple:
        several, hint = True, typing.get_args(hint)[0]
    kind = hint if hint is bool or typing.get_origin(hint) is Annotated else str
    return Option(f"--{name.replace('_', '-')}", kind, several, optional, comment)


class Parser(argparse.ArgumentParser):
    """Its errors are worded as those of every other part."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (`{self.prog} --help` lists the options)")
