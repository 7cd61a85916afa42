"""The vocabulary layout is one explicit value: stored, hashed, compared."""

import dataclasses
import json

import pytest
import torch

from codec.io.errors import UserError
from codec.streams import StreamSpec
from codec.tokens import AudioTokens
from lm.text_tokenizer import SentencePieceTokenizer
from lm.vocabulary import VocabularyLayout
from tests.factories.language_model import FLAT
from tests.factories.tokens import two_streams


@pytest.fixture(scope="module")
def layout():
    tokenizer = SentencePieceTokenizer.train(["one two three four", "the red bird sings"] * 20, 300)
    return VocabularyLayout.build(tokenizer, two_streams(256, 256), "codec-1")


def test_round_trip_through_a_file(layout, tmp_path):
    layout.save(tmp_path / "vocabulary.json")
    again = VocabularyLayout.load(tmp_path / "vocabulary.json")
    assert again == layout and again.hash == layout.hash


def test_the_order_of_tags_does_not_change_the_hash(layout):
    reordered = dataclasses.replace(layout, tags=dict(reversed(layout.tags.items())))
    assert reordered.hash == layout.hash


def test_a_mismatch_names_both_sides_and_the_field(layout):
    low, high = layout.streams
    other = dataclasses.replace(layout, streams=(dataclasses.replace(low, eos=258), high))
    with pytest.raises(UserError, match="descriptive_eos: 257 in model A, 258 in store B"):
        layout.require_same(other, "model A", "store B")
    layout.require_same(dataclasses.replace(layout), "model A", "store B")


def test_missing_and_impossible_values_are_named(layout, tmp_path):
    values = layout.to_dict()
    del values["structural_eos"]
    with pytest.raises(UserError, match="'structural_eos' is missing"):
        VocabularyLayout.from_dict(values)
    with pytest.raises(ValueError, match="descriptive_pad = 999 lies outside the 260 descriptive ids"):
        dataclasses.replace(layout.streams[0], pad=999)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="broken.json"):
        VocabularyLayout.load(tmp_path / "broken.json")


def test_structural_ids_lie_behind_the_descriptive_ones(layout):
    low, high = layout.streams
    assert layout.offsets == (0, low.size) and layout.audio_size == low.size + high.size


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


def test_the_released_two_streams_are_stored_as_they_first_were():
    """Byte for byte, with the hash of before there were streams: old models, checkpoints and stores go on."""
    layout = VocabularyLayout.from_dict(FLAT)
    stored = FLAT | {"tags": {k: FLAT["tags"][k] for k in sorted(FLAT["tags"])}, "text_fingerprint": ""}
    stored |= {"audio_fingerprint": "", "num_codebooks": 8}
    assert list(layout.to_dict()) == list(stored) and layout.to_dict() == stored
    assert layout.hash == "fb33dd383fd3720a"
    assert VocabularyLayout.from_dict(layout.to_dict()) == layout


UNEVEN = [StreamSpec("words", 3.125, 2, 16), StreamSpec("sound", 25.0, 6, 32), StreamSpec("detail", 50.0, 4, 24)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_streams_are_written_and_parsed(layout, count, tmp_path):
    tokenizer = SentencePieceTokenizer.train(["one two three four", "the red bird sings"] * 20, 300)
    layout = VocabularyLayout.build(tokenizer, UNEVEN[-count:], "codec-2", 16_000)
    layout.save(tmp_path / "vocabulary.json")
    assert VocabularyLayout.load(tmp_path / "vocabulary.json") == layout
    assert layout.specs == tuple(UNEVEN[-count:]) and layout.num_columns == 1 + max(s.codebooks for s in layout.specs)
    generator = torch.Generator().manual_seed(0)
    ids = {
        s.name: torch.randint(s.codes, (s.codebooks, 3 + i), generator=generator) for i, s in enumerate(layout.specs)
    }
    tokens = AudioTokens(ids, 10, "codec-2")
    rows = [frame.tolist() for _, frames in layout.frames(tokens, "audio") for frame in frames.T]
    assert len(rows) == layout.row_count(tokens, "audio") == sum(x.shape[1] + 2 for x in ids.values())
    parsed = [layout.parse(row) for row in rows]
    for i, stream in enumerate(layout.streams):
        mine = [row for row in parsed if row.stream == i]
        assert [mine[0].place, mine[-1].place] == ["bos", "eos"] and {row.place for row in mine[1:-1]} == {"frame"}
        assert torch.tensor([row.codes for row in mine[1:-1]]).T.equal(ids[stream.name])
        alone = layout.frames(tokens, stream.name)
        assert len(alone) == 1 and alone[0][1].shape[1] == layout.row_count(tokens, stream.name)
