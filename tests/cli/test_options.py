"""Every number of every verb is of one of the kinds of codec/io/numbers.py, and every option says what it is for."""

import inspect
import math
import types
import typing

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.main import app
from cli.options import NumberParser
from codec.io import numbers


def callbacks(group=app, name="uniaudio"):
    for command in group.registered_commands:
        yield f"{name} {command.name or command.callback.__name__}", command.callback
    for sub in group.registered_groups:
        yield from callbacks(sub.typer_instance, f"{name} {sub.name}")


def parameters():
    for verb, callback in callbacks():
        hints = typing.get_type_hints(callback, include_extras=True)
        for name in inspect.signature(callback).parameters:
            if hints[name] is typer.Context:  # `evaluate` hands everything to the suite (evaluation/config.py)
                continue
            base, *extras = typing.get_args(hints[name])
            info = next(e for e in extras if isinstance(e, typer.models.ParameterInfo))
            yield pytest.param(base, info, id=f"{verb} {name}")


PARAMETERS = list(parameters())
NUMERIC = [p for p in PARAMETERS if any(n in str(p.values[0]) for n in ("int", "float"))]


def leaves(annotation):
    inner = [arg for arg in typing.get_args(annotation) if arg is not types.NoneType]
    return [leaf for arg in inner for leaf in leaves(arg)] if inner else [annotation]


@pytest.mark.parametrize(("base", "info"), PARAMETERS)
def test_numbers_have_a_kind_and_all_have_help(base, info):
    assert info.help and info.help.strip()
    for leaf in leaves(base):
        if leaf in (int, float):
            assert isinstance(info.parser, NumberParser), "use cli.options.number_option"
            assert numbers.kind_of(info.parser.kind)[0] is leaf


NONSENSE = ["nan", "inf", "-inf", "1e999", "-1e999", "18446744073709551616", "-9223372036854775809", "１２", "1_000"]
NONSENSE += ["0x10", "", " ", "one", "1,5", "--", "1 2", "9" * 5000, "\x1b[2J", "1\0"]


@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_is_refused_by_every_number(value):
    kinds = [p.values[1].parser.kind for p in NUMERIC]
    assert len(kinds) > 15
    for kind in kinds:
        if numbers.kind_of(kind)[0] is float and value[-1:].isdigit() and len(value) == 20:
            continue  # a large number, but a number
        with pytest.raises(typer.BadParameter, match="it must"):
            NumberParser(kind)(value)


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**70), 2**70), st.sampled_from(NUMERIC))
def test_what_is_read_is_in_the_range_and_is_what_was_written(value, parameter):
    kind = parameter.values[1].parser.kind
    number, limits = numbers.kind_of(kind)
    try:
        read = NumberParser(kind)(repr(value))
    except typer.BadParameter:
        return
    assert read == value and type(read) is number and math.isfinite(read) and not limits.problem(read)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["speak", "one", "--seed", "-1"], "--seed"),
        (["speak", "one", "--seed", "18446744073709551616"], "--seed"),
        (["speak", "one", "--temperature", "inf"], "--temperature"),
        (["compose", "rain", "--guidance", "nan"], "--guidance"),
        (["compose", "rain", "--top-k", "0"], "--top-k"),
        (["speak", "one", "--max-seconds", "1e999"], "--max-seconds"),
        (["speak", "one", "--max-seconds", "0"], "--max-seconds"),
        (["speak", "one", "--steps", "18446744073709551616"], "--steps"),
        (["detokenize", "x", "--guidance", "0.5"], "--guidance"),
        (["transcribe", "x.wav", "--max-rows", "1_000"], "--max-rows"),
        (["chat", "--seed", "0x10"], "--seed"),
        (["corpus", "synthesise", "--out", "x", "--processes", "0"], "--processes"),
        (["corpus", "synthesise", "--out", "x", "--seed", "nan"], "--seed"),
        (["speak", "one", "--bo\x1b[2Jgus"], "gus"),
        (["dance\x1b]0;owned\x07"], "owned"),
        (["speak"], "text"),
        (["speak", "one", "two"], "two"),
        (["transcribe"], "files"),
    ],
)
def test_a_wrong_command_line_is_one_printable_sentence(uniaudio, arguments, named):
    done = uniaudio(*arguments)
    assert done.status == 2 and done.out == "" and len(done.err.splitlines()) == 1
    assert done.err.startswith("uniaudio: ") and named in done.err and done.err.strip().isprintable()
    assert "--help" in done.err


def test_help_and_version(uniaudio):
    assert "Usage: uniaudio speak" in uniaudio("speak", "--help").out
    done = uniaudio("--version")
    assert done.status == 0 and done.out.startswith("uniaudio ") and done.out.strip()[-1].isdigit()
    assert "Commands" in (uniaudio().out + uniaudio().err) and "show" in (uniaudio("corpus").err)
