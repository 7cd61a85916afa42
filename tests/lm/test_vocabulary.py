"""The vocabulary layout is one explicit value: stored, hashed, compared."""

import dataclasses

import pytest

from codec.errors import UserError
from lm.text_tokenizer import SentencePieceTokenizer
from lm.vocabulary import VocabularyLayout


@pytest.fixture(scope="module")
def layout():
    tokenizer = SentencePieceTokenizer.train(["one two three four", "the red bird sings"] * 20, 300)
    return VocabularyLayout.build(tokenizer, 256, 256, "codec-1")


def test_round_trip_through_a_file(layout, tmp_path):
    layout.save(tmp_path / "vocabulary.json")
    again = VocabularyLayout.load(tmp_path / "vocabulary.json")
    assert again == layout and again.hash == layout.hash


def test_the_order_of_tags_does_not_change_the_hash(layout):
    reordered = dataclasses.replace(layout, tags=dict(reversed(layout.tags.items())))
    assert reordered.hash == layout.hash


def test_a_mismatch_names_both_sides_and_the_field(layout):
    other = dataclasses.replace(layout, descriptive_eos=258)
    with pytest.raises(UserError, match="descriptive_eos: 257 in model A, 258 in store B"):
        layout.require_same(other, "model A", "store B")
    layout.require_same(dataclasses.replace(layout), "model A", "store B")


def test_missing_and_impossible_values_are_named(layout, tmp_path):
    values = layout.to_dict()
    del values["structural_eos"]
    with pytest.raises(ValueError, match="structural_eos"):
        VocabularyLayout.from_dict(values)
    with pytest.raises(ValueError, match="outside the 260 descriptive ids"):
        dataclasses.replace(layout, descriptive_pad=999)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="broken.json"):
        VocabularyLayout.load(tmp_path / "broken.json")


def test_structural_ids_lie_behind_the_descriptive_ones(layout):
    assert layout.structural_offset == layout.descriptive_card
    assert layout.audio_size == layout.descriptive_card + layout.structural_card
