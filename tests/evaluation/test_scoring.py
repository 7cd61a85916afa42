"""Scoring: predictions out of answers, and what stands beside each score."""

from dataclasses import replace

import numpy as np
import pytest

from auditory_sentences.corpora.clip import Clip
from auditory_sentences.sentence import AuditorySentence
from codec.io.errors import UserError
from evaluation.items import Item, Target
from evaluation.phrases import label_in_text, labels_in_text
from evaluation.runner import Answer
from evaluation.scoring import FLOOR_ITEMS, Extractor, chance, compare, score_originals, score_rows
from evaluation.task import Data, EvalTask, Score

PHRASES = {"dog": ("dog", "hound"), "cat": ("cat",), "bird": ("bird",)}
ACCENTS = {"english": ["english", "british"], "northern english": ["northern english"], "none": ["no accent"]}
LABEL = Score("class", "accuracy", "label_in_text", label="class")
LIKELY = Score("likely", "accuracy", "max_likelihood", label="class")
WORDS = Score("words", "wer", "text")
AUDIO = Score("distance", "mel_distance", "waveform")
WAVE = (0.1 * np.random.default_rng(0).standard_normal(12_000)).astype(np.float32)


class FakeJudges:
    """Transcribes a waveform as its length; nothing runs."""

    def transcripts(self, waveforms, rules):
        return [None if waveform is None else f"{len(waveform)}" for waveform in waveforms]

    def pairs(self, measure, predictions, references):
        return list(map(measure, predictions, references))

    def numbers(self, waveforms, judge):
        return [None if waveform is None else judge.judge(waveform) for waveform in waveforms]


class FakeRunner:
    """Its codec decodes every clip to the same."""

    class decoder:  # noqa: N801
        @staticmethod
        def waveforms(tokens):
            return [WAVE for _ in tokens]


def item(name, reference, **targets):
    clip = Clip(name, f"{name}.wav", "sound", "test", labels={"class": reference})
    known = {
        "class": Target(reference, PHRASES, 3),
        "likely": Target(reference, PHRASES, 2),
        "words": Target(reference),
    }
    made = Item(name, clip, None, AuditorySentence((), name), "text", reference, known | targets)
    made.__dict__["recording"] = WAVE  # in place of a file
    return made


def task(*scores, request="sound_caption"):
    return EvalTask("t", 1, "T", "A.", request, Data("sound"), scores)


ITEMS = [item("a", "dog"), item("b", "cat"), item("c", "dog")]
ANSWERS = [Answer("a hound", "end"), Answer("a dog and a cat", "end"), Answer("a bird", "end")]
EXTRACTOR = Extractor(FakeJudges(), [])


def test_a_label_is_read_or_unparsed_and_compared():
    ((row,), _) = score_rows(task(LABEL), ITEMS, ANSWERS, None, FakeRunner, EXTRACTOR)
    assert row.model.predictions == ["dog", None, "bird"] and row.model.references == ["dog", "cat", "dog"]
    assert row.model.unparsed == 1 and row.model.estimate.value == pytest.approx(1 / 3)
    assert row.chance == pytest.approx(1 / 3)
    assert row.untrained is row.original is row.codec is None


def test_scores_are_told_for_each_value_of_a_label_too():
    """Those of all items together are the weighted mean of them; items without the label are in none."""
    by_class = replace(task(LABEL, WORDS), apart="class")
    bare = replace(ITEMS[0], clip=replace(ITEMS[0].clip, labels={}))
    rows, _ = score_rows(by_class, [*ITEMS, bare], [*ANSWERS, ANSWERS[0]], None, FakeRunner, EXTRACTOR)
    for row in rows:
        assert {value: part.estimate.n for value, part in row.apart.items()} == {"cat": 1, "dog": 2}
    named = rows[0].apart
    assert (named["dog"].estimate.value, named["cat"].estimate.value, named["cat"].unparsed) == (0.5, 0.0, 1)
    assert named["dog"].predictions == ["dog", "bird"]
    ((alone,), _) = score_rows(task(LABEL), ITEMS, ANSWERS, None, FakeRunner, EXTRACTOR)
    assert alone.apart == {}
    with pytest.raises(ValueError, match="'apart' is for requests that a model answers"):
        EvalTask("t", 1, "T", "A.", "reconstruction", Data("sound"), (AUDIO,), apart="class")


def test_the_untrained_model_is_compared_on_the_first_items():
    ((row,), _) = score_rows(task(LABEL), ITEMS, ANSWERS, ANSWERS[2:], FakeRunner, EXTRACTOR)
    assert row.untrained.predictions == ["bird"] and row.untrained.references == ["dog"]
    assert row.untrained.estimate.n == 1 and row.model.estimate.n == 3


def test_the_most_likely_value_is_never_unparsed():
    answers = [Answer("", "end", log_probabilities={"likely": p}) for p in ([-1.0, -2.0, -3.0], [-2.0, -1.0, -3.0])]
    predictions = EXTRACTOR.from_answers(task(LIKELY), LIKELY, ITEMS[:2], answers)
    assert (
        predictions == ["dog", "cat"]
        and compare(task(LIKELY), LIKELY, ITEMS[:2], predictions, EXTRACTOR).estimate.value == 1.0
    )
    assert chance(task(LIKELY), LIKELY, ITEMS, EXTRACTOR) == 0.5


def test_words_and_likelihoods_are_taken_as_they_stand():
    assert EXTRACTOR.from_answers(task(WORDS), WORDS, ITEMS, ANSWERS)[0] == "a hound"
    score = Score("p", "perplexity", "likelihood")
    answers = [Answer(None, "scored", likelihood=(4.0, 2.0))] * 3
    items = [item(name, "x", p=Target("x")) for name in "abc"]
    predictions = EXTRACTOR.from_answers(task(score, request="text_only"), score, items, answers)
    assert compare(
        task(score, request="text_only"), score, items, predictions, EXTRACTOR
    ).estimate.value == pytest.approx(np.exp(2.0))


def test_audio_stands_beside_its_ceilings():
    said = Score("said", "wer", "recogniser")
    items = [item(name, "12000", said=Target("1 2 0 0 0"), distance=Target("")) for name in "ab"]
    answers = [Answer(None, "max_rows"), Answer(None, "end", waveform=WAVE[:6_000])]
    generated = task(said, AUDIO, request="sound_generation")
    (words, distance), _ = score_rows(generated, items, answers, None, FakeRunner, EXTRACTOR)
    assert words.model.predictions == [None, "6000"] and words.model.unparsed == 1
    assert words.original.estimate.value == words.codec.estimate.value == 0.0
    assert distance.original is None and distance.codec.estimate.value == 0.0 and distance.model.estimate.n == 1
    ((alone,), _) = score_rows(task(AUDIO, request="reconstruction"), items, answers, None, FakeRunner, EXTRACTOR)
    assert alone.codec is None


def test_every_judge_of_sound_hears_silence_and_noise_too():
    """As long as the recordings, the same whatever is evaluated, and never for scores that read text."""
    said = Score("said", "wer", "recogniser")
    items = [item(str(i), "12000", said=Target("1 2 0 0 0"), distance=Target("")) for i in range(30)]
    answers = [Answer(None, "end", waveform=WAVE)] * 30
    rows, _ = score_rows(task(said, AUDIO, request="sound_generation"), items, answers, None, FakeRunner, EXTRACTOR)
    for row in rows:
        assert {name: floor.estimate.n for name, floor in row.floors.items()} == {
            "silence": FLOOR_ITEMS,
            "noise": FLOOR_ITEMS,
        }
    words, distance = (row.floors for row in rows)
    assert words["silence"].predictions == ["12000"] * FLOOR_ITEMS
    assert not np.any(distance["silence"].predictions[0])
    assert distance["silence"].estimate.value > distance["noise"].estimate.value > 0
    ((alone,), _) = score_rows(task(LABEL), ITEMS, ANSWERS, None, FakeRunner, EXTRACTOR)
    assert alone.floors == {}


def test_originals_that_cannot_be_read_are_left_out():
    said = Score("said", "wer", "recogniser")
    gone = item("gone", "1", said=Target("1"))
    gone.__dict__["unreadable"] = "gone.wav: no such file"
    whole = item("whole", "1", said=Target("1 2 0 0 0"))
    generated = task(said, request="sound_generation")
    assert score_originals(generated, said, [gone, whole], EXTRACTOR).estimate.n == 1
    assert score_originals(generated, said, [gone], EXTRACTOR) is None


def test_what_the_training_split_lacks_is_named():
    signal = Score("class", "accuracy", "signal_classifier", label="class")
    one = [Clip(str(i), f"{i}.wav", "sound", "train", labels={"class": "dog"}) for i in range(3)]
    with pytest.raises(UserError, match=r"signal classifier of 'class' needs training clips of sound .* \['dog'\]"):
        Extractor(FakeJudges(), one).from_waveforms(task(signal, request="sound_generation"), signal, [WAVE])
    corpus = Score("words", "wer", "recogniser", grammar="corpus")
    with pytest.raises(UserError, match="no speech with text in split 'train'"):
        EXTRACTOR.from_waveforms(task(corpus, request="sound_generation"), corpus, [WAVE])
    other = [*one, Clip("x", "missing.wav", "sound", "train", labels={"class": "cat"})]
    with pytest.raises(UserError, match="is fitted to training recordings, and one cannot be read"):
        Extractor(FakeJudges(), other).from_waveforms(task(signal, request="sound_generation"), signal, [WAVE])


def test_the_recogniser_expects_what_the_task_is_about():
    def expected(kind, **labels):
        """What a task about clips of that kind with these labels may hear, of all words there are."""
        request = {"speech": "tts", "mixture": "denoising"}[kind]
        about = EvalTask("t", 1, "T", "A.", request, Data(kind, labels=labels), (words,))
        (arpa,) = Extractor(Words(), clips).from_waveforms(about, words, [WAVE])
        return {word for word in "one two dogs bark cats purr birds sing".split() if f"\t{word}\t" in arpa}

    class Words(FakeJudges):
        def transcripts(self, waveforms, rules):
            return [rules.arpa for _ in waveforms]

    words = Score("words", "wer", "recogniser", grammar="corpus")
    said = {"one two": "digits", "dogs bark": "sentence", "cats purr": "sentence"}
    clips = [
        Clip(text, "x.wav", "speech", split, text=text, labels={"content": content})
        for split, texts in (("train", said), ("test", {"birds sing": "sentence"}))
        for text, content in texts.items()
    ]
    whole = {"one", "two", "dogs", "bark", "cats", "purr"}
    assert expected("speech") == whole
    assert expected("speech", content="sentence") == whole - {"one", "two"}
    assert expected("speech", content="digits") == {"one", "two"}
    assert expected("speech", content="songs") == whole  # no training speech has it
    assert expected("mixture", content="sentence") == whole  # a mixture's labels say nothing of speech


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
