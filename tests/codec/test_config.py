"""Configurations: what of them is an identity."""

from dataclasses import dataclass

from codec.config import QuantiserConfig, StructuralConfig, without_defaults


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
