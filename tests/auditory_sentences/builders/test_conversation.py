"""Conversations: whole requests in a row, within their rows, the same every time."""

import pytest

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.conversation import MAX_TURNS, conversation, turns_about
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.lengths import row_limit
from auditory_sentences.rng import KeyedRng
from tests.factories.store import tiny_store


@pytest.fixture(scope="module")
def data():
    catalogue = Catalogue(tiny_store(), "train")
    return catalogue, PromptBank.load().with_label_values(catalogue.label_values)


def turns(sentence):
    """The segments from one prompt to the next."""
    starts = [i for i, segment in enumerate(sentence.segments) if segment.role == "prompt"]
    ends = [*starts[1:], len(sentence.segments)]
    return [sentence.segments[start:end] for start, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("max_rows", [200, 512, 2000])
def test_a_conversation_is_whole_requests_that_fit(data, max_rows):
    catalogue, bank = data
    seen = set()
    for number in range(60):
        first = catalogue.members[number % len(catalogue.members)]
        sentence = conversation(catalogue, bank, first, KeyedRng("test", number), max_rows)
        found = turns(sentence)
        assert 1 <= len(found) <= MAX_TURNS
        assert len(found) == 1 or row_limit(sentence.segments) <= max_rows
        for turn in found:
            *given, answer = turn
            assert answer.is_target and given and not any(segment.is_target for segment in given)
        seen.add(len(found))
        again = conversation(catalogue, bank, first, KeyedRng("test", number), max_rows)
        assert again.name == sentence.name and len(again.segments) == len(sentence.segments)
    assert max(seen) == MAX_TURNS or max_rows < 2000


def test_turns_are_requests_that_the_clip_can_serve(data):
    catalogue, bank = data
    by_kind = {catalogue.clip(i).kind: set(turns_about(catalogue, i, bank)) for i in catalogue.members}
    assert {"asr", "tts", "instruct_tts"} <= by_kind["speech"]
    assert {"music_caption", "music_generation"} <= by_kind["music"]
    assert not by_kind["sound"] & {"asr", "tts", "audio_only", "text_only"}
