"""Configurations: what of them is an identity, and that every number in them has a range."""

import dataclasses
import types
import typing
from dataclasses import asdict, dataclass

import pytest

from codec.experts.music_encoder import MusicEncoderConfig
from codec.io.errors import UserError
from codec.io.numbers import Range
from codec.io.strict import parse, without_defaults
from codec.layers.config import QuantiserConfig
from codec.reasoning.config import ReasoningCodecConfig, StructuralConfig
from lm.vocabulary import VocabularyLayout


@dataclass(frozen=True)
class Later(StructuralConfig):
    """The same configuration after the project has gained a setting."""

    novelty: bool = False


def test_a_setting_that_is_left_alone_changes_no_identity():
    quantiser = QuantiserConfig(codebook_size=16)
    assert without_defaults(StructuralConfig(quantiser=quantiser)) == {"quantiser": {"codebook_size": 16}}
    assert without_defaults(Later(quantiser=quantiser)) == without_defaults(StructuralConfig(quantiser=quantiser))
    assert without_defaults(Later(novelty=True)) == {"novelty": True}


def test_members_of_tuples_and_dictionaries_are_told_apart_by_what_they_set():
    assert without_defaults((QuantiserConfig(), QuantiserConfig(decay=0.5))) == [{}, {"decay": 0.5}]
    assert without_defaults({"a": QuantiserConfig(codebook_dim=8)}) == {"a": {"codebook_dim": 8}}


def numbers(kind, ranged=False):
    """(number type, whether it has a range) of all numbers in an annotation, those of nested dataclasses included."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *marks = typing.get_args(kind)
        yield from numbers(inner, any(isinstance(mark, Range) for mark in marks))
    elif dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            for number, has_range in numbers(hint):
                yield f"{kind.__name__}.{name}" if isinstance(number, type) else number, has_range
    elif kind in (int, float):
        yield kind, ranged
    elif typing.get_origin(kind) is not typing.Literal:
        for part in typing.get_args(kind):
            is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
            yield from numbers(part, ranged and is_union) if part not in (Ellipsis, type(None)) else ()


@pytest.mark.parametrize("config", [ReasoningCodecConfig, MusicEncoderConfig, VocabularyLayout])
def test_every_number_has_a_range(config):
    found = dict(numbers(config))
    assert len(found) > 10 and [name for name, ranged in found.items() if not ranged] == []


def test_whole_numbers_stay_whole_where_a_fingerprint_is_made_of_them():
    values = asdict(ReasoningCodecConfig())
    again = parse(ReasoningCodecConfig, values, "config.json")
    low = again.experts[0].views["speech_text"].low
    assert again == ReasoningCodecConfig() and isinstance(low, int)
    values["experts"][0]["views"]["speech_text"]["low"] = 60.5
    assert parse(ReasoningCodecConfig, values, "config.json").experts[0].views["speech_text"].low == 60.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 8000}, "low 8000 Hz must lie below its high"),
        ({"low": -1}, "low.* must be at least 0"),
        ({"scale": "bark"}, "must be one of mel, log"),
        ({"scale": "log", "low": 0}, "logarithmic"),
        ({"stack": 7}, "divided evenly into 7"),
        ({"bands": 10**6}, "bands.* must be at least 1"),
    ],
)
def test_views_that_cannot_be_are_refused(change, message):
    values = asdict(ReasoningCodecConfig())
    values["experts"][0]["views"]["speech_text"].update(change)
    with pytest.raises(UserError, match=f"^config.json: .*{message}"):
        parse(ReasoningCodecConfig, values, "config.json")
