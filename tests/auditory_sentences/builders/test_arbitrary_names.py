"""The words that stand for classes: of the data, never a class's own, and a part of them never in training."""

from hypothesis import given
from hypothesis import strategies as st

from auditory_sentences.builders.arbitrary_names import FEW_WORDS, is_held_out, name_words
from auditory_sentences.corpora.clip import Clip


def clip(i, text="", caption="", split="train"):
    return Clip(f"clip-{i}", "x.wav", "speech", split, text=text, caption=caption)


texts = st.lists(st.text("abcdefg .,'", max_size=40), max_size=30)


@given(texts, st.lists(st.text("abcdefg ", min_size=1, max_size=9), max_size=6))
def test_any_data_has_words_for_any_episode(said, values):
    words = name_words([clip(i, text) for i, text in enumerate(said)], values)
    assert len(set(words)) == len(words)
    assert not set(words) & {part for value in values for part in value.split()}
    assert sum(map(is_held_out, words)) >= 4 <= sum(not is_held_out(word) for word in words)


def test_the_words_are_the_datas_own_the_commonest_first_of_all_splits():
    said = ["the old door"] * 5 + ["the dog barks"] * 4 + ["a rare thing"] * 2
    clips = [clip(i, text, split=("train", "test")[i % 2]) for i, text in enumerate(said)]
    assert name_words(clips, ["dog"])[:4] == ("the", "door", "old", "barks")
    captions = [clip(i, caption=text) for i, text in enumerate(said)]
    assert name_words(captions, ["dog"]) == name_words(clips, ["dog"])
    many = [clip(i, " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600))) for i in range(3)]
    assert FEW_WORDS < len(name_words(many, [])) <= 256 and "apple" not in name_words(many, [])
