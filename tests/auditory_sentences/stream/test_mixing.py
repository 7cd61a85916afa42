"""The order of sentences: a pure function, the same everywhere, with nothing lost or repeated before its time."""

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditory_sentences.builders.constructions import CONSTRUCTIONS
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS
from auditory_sentences.lengths import row_limit
from auditory_sentences.stream.mixing import SentenceStream, absent_streams
from codec.io.errors import UserError
from tests import ROOT
from tests.factories.store import one_stream_store, tiny_store

# The tiny store holds no songs, rooms, edited speech and no questions.
LACKING = {
    "lyric_recognition",
    "song_generation",
    "dereverberation",
    "speech_editing",
    "spoken_answer",
    "written_answer",
}
TASK_NAMES = sorted(set(TASKS) - LACKING)
EVERYTHING = dict.fromkeys(
    [
        *TASK_NAMES,
        *CONSTRUCTIONS,
        "conversation",
        "few_shot:asr",
        "few_shot:tts",
        "classification",
        "classification:tempo",
        "arbitrary_names",
        "arbitrary_names:speaker",
    ],
    1.0,
)
PLACES = [(epoch, i) for epoch in (0, 4) for i in range(90)]


@pytest.fixture(scope="module")
def store():
    return tiny_store()


def digest(stream, places):
    """Everything about the sentences at those places."""
    total = hashlib.sha256()
    for at in places:
        sentence, hidden = stream[at]
        total.update(repr((sentence.name, hidden)).encode())
        for segment in sentence.segments:
            total.update(repr((segment.role, segment.is_target)).encode())
            if segment.is_text:
                total.update(segment.content.encode())
            else:
                total.update(segment.content["descriptive"].numpy().tobytes())
                total.update(segment.content["structural"].numpy().tobytes())
    return total.hexdigest()


def test_any_order_of_access_gives_the_same_sentences(store):
    places = [(epoch, i) for epoch in (0, 1, 5) for i in range(60)]
    one = SentenceStream(store, EVERYTHING, seed=3, max_rows=512)
    forward = {at: digest(one, [at]) for at in places}
    other = SentenceStream(store, EVERYTHING, seed=3, max_rows=512)
    assert {at: digest(other, [at]) for at in reversed(places)} == forward


@pytest.mark.parametrize("hash_seed", ["77", pytest.param("0", marks=pytest.mark.slow)])
def test_the_same_in_another_process(store, hash_seed):
    code = (
        "from tests.auditory_sentences.stream.test_mixing import *\n"
        "print(digest(SentenceStream(tiny_store(), EVERYTHING, seed=3, max_rows=512), PLACES))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    here = digest(SentenceStream(store, EVERYTHING, seed=3, max_rows=512), PLACES)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == here


def test_golden_names(store):
    """A change here changes the data of every recipe's seed."""
    stream = SentenceStream(store, {"asr": 2, "tts": 1, "segmented_audio": 0.5}, seed=1, max_rows=512)
    assert [stream[0, i].sentence.name for i in range(6)] == [
        "tts:train-story-4",
        "tts:train-speech-5",
        "asr:train-speech-4",
        "asr:train-speech-4",
        "asr:train-speech-6",
        "tts:train-speech-1",
    ]


def test_seed_epoch_and_split_change_the_order(store):
    def names(seed, epoch, split="train"):
        stream = SentenceStream(store, {"asr": 1}, seed=seed, split=split, max_rows=512)
        return [stream[epoch, i].sentence.name for i in range(min(7, len(stream)))]

    assert len({tuple(names(seed, epoch)) for seed in range(4) for epoch in range(4)}) == 16
    assert all(name.startswith("asr:dev-") for name in names(0, 0, "dev"))


def test_one_source_comes_once_an_epoch(store):
    stream = SentenceStream(store, {"asr": 5.0}, seed=0, max_rows=512)
    for epoch in range(3):
        names = Counter(stream[epoch, i].sentence.name for i in range(len(stream)))
        assert len(names) == len(stream) == 21 and set(names.values()) == {1}


@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(EVERYTHING)), st.floats(0.01, 10), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_shares_are_exact_and_no_anchor_is_lost_or_repeated_early(mixture, seed):
    stream = SentenceStream(tiny_store_once(), mixture, seed=seed, max_rows=512)
    weight = sum(mixture.values())
    seen = {name: Counter() for name in mixture}
    for epoch in range(3):
        counts = Counter()
        for i in range(len(stream)):
            source, anchor = stream.place(epoch, i)
            counts[source.name] += 1
            seen[source.name][anchor] += 1
        for name, (count, _) in stream.shares.items():
            assert counts[name] == count
            assert abs(count - mixture[name] / weight * sum(len(s.anchors) for s in stream.sources)) <= 1
        for source in stream.sources:  # after every epoch: each anchor as often as any other, to within one
            times = [seen[source.name][anchor] for anchor in range(len(source.anchors))]
            assert max(times) - min(times) <= 1
            assert sum(times) == (epoch + 1) * counts[source.name]


def tiny_store_once(cache=[]):  # noqa: B006
    if not cache:
        cache.append(tiny_store())
    return cache[0]


def test_an_epoch_is_mixed(store):
    """No long stretch of one source, as there would be if the sources were laid end to end."""
    stream = SentenceStream(store, {"asr": 1, "sound_caption": 1}, seed=0, max_rows=512)
    names = [stream[0, i].sentence.name.split(":")[0] for i in range(len(stream))]
    changes = sum(a != b for a, b in pairwise(names))
    assert changes > len(names) / 4


def test_guidance_dropout_hides_a_tenth_of_generation_and_nothing_else(store):
    stream = SentenceStream(store, {"tts": 1, "music_generation": 1, "few_shot:tts": 1, "asr": 1}, seed=0, max_rows=512)
    hidden, all_of = Counter(), Counter()
    for epoch in range(40):
        for i in range(len(stream)):
            source, anchor = stream.place(epoch, i)
            all_of[source.name] += 1
            hidden[source.name] += stream[epoch, i].drop_conditions
    assert hidden["asr"] == 0
    for name in ("tts", "music_generation", "few_shot:tts"):
        assert 0.06 < hidden[name] / all_of[name] < 0.14
    plain = SentenceStream(store, {"tts": 1}, seed=0, max_rows=512, guidance_dropout=0)
    assert not any(plain[0, i].drop_conditions for i in range(len(plain)))


def test_text_only_reads_the_texts(store):
    texts = [f"line number {i}" for i in range(10)]
    stream = SentenceStream(store, {"text_only": 1}, seed=0, max_rows=512, texts=texts)
    assert sorted(stream[0, i].sentence.segments[0].content for i in range(len(stream))) == sorted(texts)
    without = SentenceStream(store, {"text_only": 1}, seed=0, max_rows=512)
    assert len(without) == 39


def test_audio_only_is_cut_to_fit(store):
    stream = SentenceStream(store, {"audio_only": 1}, seed=0, max_rows=60)
    starts = set()
    for epoch in range(8):
        for i in range(len(stream)):
            sentence = stream[epoch, i].sentence
            assert row_limit(sentence.segments) <= 60
            if sentence.name == "audio_only:train-long":
                assert row_limit(sentence.segments) == 60
                starts.add(sentence.segments[0].content["structural"][:, 0].numpy().tobytes())
    assert len(starts) > 3


def test_dev_clips_never_come_in_train(store):
    for split, other in (("train", "dev-"), ("dev", "train-")):
        stream = SentenceStream(store, EVERYTHING, seed=0, split=split, max_rows=512)
        others = [i for i, clip in enumerate(store.clips) if clip.id.startswith(other)]
        held_out = {store[i].tokens["structural"].numpy().tobytes() for i in others}
        for i in range(len(stream)):
            for segment in stream[0, i].sentence.segments:
                assert segment.is_text or segment.content["structural"].numpy().tobytes() not in held_out


@pytest.mark.parametrize(
    ("mixture", "complaint"),
    [
        ({"asrr": 1}, "'asrr', which is no task.*did you mean 'asr'"),
        ({"few_shot": 1}, "did you mean 'few_shot:TASK'"),
        ({"few_shot:zzz": 1}, "no task 'zzz'"),
        ({"song_generation": 1}, "'song_generation'.* 'train' of the data has no clips"),
        ({"classification:mood": 1}, "no clips to make it of"),
        ({"arbitrary_names:mood": 1}, "no clips to make it of"),
        ({"arbitrary_name": 1}, "did you mean 'arbitrary_names'"),
        ({"audio_qa:bpm": 1}, "no clips to make it of"),
        ({}, "at least one weight above 0"),
        ({"asr": 0}, "at least one weight above 0"),
        ({"asr": 1, "tts": -1}, "none below"),
    ],
)
def test_bad_mixtures_are_explained(store, mixture, complaint):
    with pytest.raises(UserError, match=complaint):
        SentenceStream(store, mixture, seed=0, max_rows=512)


def test_places_outside_are_errors(store):
    stream = SentenceStream(store, {"asr": 1}, seed=0, max_rows=512)
    for at in ((0, len(stream)), (0, -1), (-1, 0)):
        with pytest.raises(IndexError):
            stream[at]


def test_hash_tells_streams_apart(store):
    def make(**changes):
        values = {"mixture": {"asr": 1}, "seed": 0, "max_rows": 512} | changes
        return SentenceStream(store, **values).hash

    assert make() == make()
    other_words = PromptBank({"asr": ["write"]}, {"*": ["x"]}, {"*": ["x"]})
    hashes = [
        make(),
        make(seed=1),
        make(mixture={"tts": 1}),
        make(max_rows=9),
        make(split="dev"),
        make(bank=other_words),
        make(texts=["a"]),
    ]
    assert len(set(hashes)) == len(hashes)


def test_entries_about_streams_that_the_tokens_lack_are_told_apart(store):
    names = [*EVERYTHING, "tts:descriptive", "few_shot:tts:descriptive", "music_generation:codes", "no such task"]
    assert absent_streams(names, ["descriptive", "structural"]) == {"music_generation:codes": "codes"}
    assert absent_streams(names, ["codes"]) == {
        "descriptive_to_structural": "descriptive",
        "structural_to_descriptive": "structural",
        "tts:descriptive": "descriptive",
        "few_shot:tts:descriptive": "descriptive",
    }
    for misspelt in ("tts:descriptiv", "few_shot:tts:descriptiv"):
        with pytest.raises(UserError, match=f"'{misspelt}' is about a stream 'descriptiv'.*did you mean 'descriptive'"):
            absent_streams([misspelt], ["codes"])


def test_a_store_of_one_stream_gives_every_kind_of_sentence():
    """Episodes too, whose examples are whole audio: there is no shorter stream that could stand for it."""
    store = one_stream_store()
    absent = absent_streams(EVERYTHING, ["codes"])
    stream = SentenceStream(store, {name: 1 for name in EVERYTHING if name not in absent}, seed=3, max_rows=512)
    roles = {s.role for at in PLACES for s in stream[at].sentence.segments if not s.is_text}
    assert roles == {"audio", "audio_prompt"} and len({stream.place(*at)[0].name for at in PLACES}) == len(
        stream.sources
    )
