"""The language model that reads words, on ids whose words are known."""

import numpy as np
import pytest
import torch
from torch import nn

from codec.io.errors import UserError
from evaluation.token_measures import reading as measure
from evaluation.token_measures.reading import SummedCodebooks, _Reader, reading_errors, words_read
from tests.evaluation.token_measures.planted import coded, plant

WORDS = ("none", "one", "two", "three", "four")
CODES = 12


def said(rng, words, known=True, codebooks=2):
    """Frames of a clip: each word is two to four frames with its id in the first codebook, the others tell nothing."""
    ids = np.repeat(words, rng.integers(2, 5, len(words))) if known else rng.integers(0, CODES, 3 * len(words))
    noise = rng.integers(0, CODES, (len(ids), codebooks - 1))
    return torch.from_numpy(np.concatenate([ids[:, None], noise], axis=1))


def clips(count, seed, **how):
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(5)[: rng.integers(1, 4)] for _ in range(count)]  # no word twice
    return [(said(rng, words, **how), [WORDS[i] for i in words]) for words in drawn]


def rate(errors):
    return sum(errors[0]) / sum(errors[1])


def ids_of(width):
    return SummedCodebooks(2, CODES, width)


def test_words_that_the_ids_tell_are_read_and_others_are_not(monkeypatch):
    monkeypatch.setattr(measure, "CHECK", 50)
    told = reading_errors(clips(300, 0), clips(20, 1), clips(40, 2), ids_of, steps=250)
    untold = reading_errors(*(clips(n, i, known=False) for i, n in enumerate((300, 20, 40))), ids_of, steps=250)
    assert rate(told) < 0.3 and rate(untold) > 0.6
    assert told[1] == [len(words) for _, words in clips(40, 2)]


def test_frames_of_numbers_are_read_too(monkeypatch):
    monkeypatch.setattr(measure, "CHECK", 50)
    splits = [[(nn.functional.one_hot(ids[:, 0], CODES).float(), words) for ids, words in clips(n, i)]
              for i, n in enumerate((300, 20, 40))]  # fmt: skip
    assert rate(reading_errors(*splits, lambda width: nn.Linear(CODES, width), steps=250)) < 0.3


def test_a_word_that_training_never_had_is_an_error():
    frames = torch.zeros(3, 2, dtype=torch.int64)
    errors, words = reading_errors([(frames, ["one"])], [(frames, ["one"])], [(frames, ["five"])], ids_of, steps=2)
    assert errors[0] >= 1 and words == [1]


def test_the_same_seed_gives_the_same_and_leaves_the_generator_alone():
    splits = clips(20, 0), clips(4, 1), clips(8, 2)
    torch.manual_seed(5)
    first = reading_errors(*splits, ids_of, steps=3)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1)) and first == reading_errors(*splits, ids_of, steps=3)


def test_a_clip_is_read_alike_alone_and_beside_longer_ones():
    torch.manual_seed(0)
    model = _Reader(ids_of, WORDS).eval()
    short, long = (torch.randint(0, CODES, (frames, 2)) for frames in (3, 17))
    texts = torch.tensor([[5, 1, 2], [5, 3, 0]])
    with torch.no_grad():
        together = model([short, long], texts)
        for i, frames in enumerate((short, long)):
            torch.testing.assert_close(together[i], model([frames], texts[i : i + 1])[0], atol=1e-5, rtol=1e-4)
        assert all(
            len(words) <= len(frames) for words, frames in zip(model.read([short, long]), (short, long), strict=True)
        )


def test_the_measure_beside_the_recordings(tmp_path, monkeypatch):
    """Two words of two levels; of the recordings themselves there is a score too, and silence is not asked for."""
    monkeypatch.setattr(measure, "STEPS", 60)
    monkeypatch.setattr(measure, "CHECK", 20)
    made = [
        plant(tmp_path, f"c{i}", [3 * (i % 2) + 1] * 12, split=("train", "dev", "test")[i // 2 % 3], text=WORDS[i % 2])
        for i in range(36)
    ]
    made.append(plant(tmp_path, "silent", [0] * 5, text=" ... "))
    found = words_read(coded(tmp_path, made), "codes")
    assert (found.estimate.value, found.estimate.n, found.chance) == (0.0, 12, 1.0)
    assert found.original is not None and found.original.n == 12
    assert "60 steps on 12 training clips" in found.note
    ran = []
    read = measure.reading_errors
    monkeypatch.setattr(measure, "reading_errors", lambda *args: ran.append(args) or read(*args))
    assert words_read(coded(tmp_path, made), "codes") == found and len(ran) == 1, "the recordings are read once"
    other = [plant(tmp_path, f"other{i}", [3 * (i % 2) + 1] * 11, text=WORDS[i % 2]) for i in range(12)]
    kept = [clip for clip in made if clip.split != "test"]
    assert words_read(coded(tmp_path, [*kept, *other]), "codes").original is not None
    assert len(ran) == 3, "other test recordings of the same words are read themselves"


def test_a_split_without_words_is_named(tmp_path):
    made = [plant(tmp_path, "a", [1, 2], split="train", text="one"), plant(tmp_path, "b", [1], text="one")]
    with pytest.raises(UserError, match="split 'dev' has none"):
        words_read(coded(tmp_path, made), "codes")
