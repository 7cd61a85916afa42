"""The configuration of an evaluation: its ranges, and the options that are built from it."""

import dataclasses

import pytest

from codec.io.errors import UserError
from evaluation.config import EvaluationConfig, find_device, options, parse_config


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"limit": True}, "--limit must be an integer, not True"),
        ({"limit": 3.0}, "--limit must be an integer, not 3.0"),
        ({"seed": 2**63}, "--seed must fit 64 bits"),
        ({"processes": 10**9}, "--processes must be at least 0 and at most 256"),
        ({"shots": [0, -1]}, "--shots must be at least 0, not -1"),
        ({"untrained_limit": None}, "--untrained-limit must be an integer, not None"),
        ({"out": ""}, "--out must name something"),
        ({"corpus": ["x\0"]}, "--corpus must name something"),
        ({"model": "m", "suite": ["a", " "]}, "--suite must name something"),
    ],
)
def test_a_value_out_of_its_range_is_refused(settings, problem):
    with pytest.raises(UserError) as error:
        EvaluationConfig(**settings)
    assert problem in str(error.value)


def test_one_value_stands_for_a_list_of_one():
    config = EvaluationConfig(suite="codec", shots=4, store="tokens")
    assert (config.suite, config.shots, config.store) == (("codec",), (4,), ("tokens",))
    assert EvaluationConfig(limit=None).limit is None and EvaluationConfig().shots is None


def test_every_field_is_an_option_with_help():
    assert set(options()) == {field.name for field in dataclasses.fields(EvaluationConfig)}
    for option in options().values():
        assert option.help and option.help == option.help.strip() and "#" not in option.help


def test_help_states_the_defaults():
    for name, option in options().items():
        default = getattr(EvaluationConfig(), name)
        stated = default[0] if option.several and default else default
        if stated and stated is not True:
            assert f"(default: {stated})" in option.help


def test_the_command_line_without_options_is_the_default(monkeypatch):
    monkeypatch.setenv("UNIAUDIO_MODEL", "m")
    assert parse_config([], "run_suite.py") == EvaluationConfig(model="m")


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99", "cpu:3", "mps"])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match="--device"):
        find_device(name)
