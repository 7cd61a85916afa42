"""The vocabulary layout is one explicit value: stored, hashed, compared."""

import dataclasses
import json

import pytest

from codec.io.errors import UserError
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
    with pytest.raises(UserError, match="'structural_eos' is missing"):
        VocabularyLayout.from_dict(values)
    with pytest.raises(ValueError, match="outside the 260 descriptive ids"):
        dataclasses.replace(layout, descriptive_pad=999)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="broken.json"):
        VocabularyLayout.load(tmp_path / "broken.json")


def test_structural_ids_lie_behind_the_descriptive_ones(layout):
    assert layout.structural_offset == layout.descriptive_card
    assert layout.audio_size == layout.descriptive_card + layout.structural_card


@pytest.mark.parametrize("value", [None, "many", [], {}, -1, 0.5, 10**9, 2**63, True])
def test_no_value_of_another_type_or_range_is_taken(layout, tmp_path, value):
    path = tmp_path / "vocabulary.json"
    for name, right in layout.to_dict().items():
        if isinstance(right, str) and isinstance(value, str):
            continue
        path.write_text(json.dumps(layout.to_dict() | {name: value}))
        with pytest.raises(UserError) as caught:
            VocabularyLayout.load(path)
        assert str(path) in str(caught.value)
        assert value in ({}, 2**63) or name in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": {"transcription": [3, 4]}}, "no tag ids for the role 'lyric'"),
        ({"tags": {"transcription": [3], "lyric": [5, 6], "caption": [7, 8]}}, "needs 2 values"),
        ({"text_eos": 5000}, "text_eos = 5000 lies outside"),
        ({"audio_prompt_bos": 5000}, "audio_prompt_bos = 5000 lies outside"),
        ({"descriptive_codes": 5000}, "more codes than"),
        ({"num_codebooks": 9}, "num_codebooks"),
        ({"words": 1}, "unknown key 'words'"),
    ],
)
def test_values_that_do_not_fit_each_other_are_named(layout, tmp_path, change, message):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(layout.to_dict() | change))
    with pytest.raises(UserError, match=message):
        VocabularyLayout.load(path)
