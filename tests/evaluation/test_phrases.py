"""Which values a text names."""

from evaluation.phrases import label_in_text, labels_in_text

ACCENTS = {"english": ["english", "british"], "northern english": ["northern english"], "none": ["no accent"]}


def test_an_answer_names_one_value_or_is_not_parsed():
    phrases = {"dog": ["dog", "barking"], "cat": ["cat"]}
    assert label_in_text("A dog, barking!", phrases) == "dog"
    assert label_in_text("a cat and a dog", phrases) is None
    assert label_in_text("a bird", phrases) is None
    assert label_in_text("hotdog", phrases) is None  # whole words only
    assert label_in_text(None, phrases) is None and label_in_text("", phrases) is None


def test_longer_phrases_use_up_their_words():
    assert labels_in_text("a northern english voice", ACCENTS) == {"northern english"}
    assert labels_in_text("northern english and english", ACCENTS) == {"northern english", "english"}
