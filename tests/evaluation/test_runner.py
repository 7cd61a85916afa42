"""Runners: what is cached of answers, and what an answer holds."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile

from auditory_sentences.sentence import Segment
from auditory_sentences.token_store import TokenStore
from evaluation.cache import Cache, key_of
from evaluation.items import ItemBuilder
from evaluation.runner import (
    Answer,
    CodecRunner,
    ModelRunner,
    _answer_from,
    _numbers,
    _plain,
    flac,
    matched,
    samples,
)
from evaluation.task import Data, EvalTask, Score, load_task
from tests.factories.store import random_tokens, tiny_store
from tests.factories.uniaudio import tiny_codec
from uniaudio.completion import Completion
from uniaudio.model import UniAudio

KEY = key_of(a=1)


def place(folder, key=KEY):
    return folder / key[:2] / key


CODEC = tiny_codec()
AUDIO = {"samples": 24_000, "reason": "end", "descriptive": [[1] * 6] * 8, "structural": [[1] * 13] * 8}
READERS = {
    "answer": (partial(_answer_from, codec=CODEC), AUDIO),
    "text": (partial(_answer_from, codec=CODEC), {"text": "a dog", "reason": "end"}),
    "options": (partial(_numbers, count=2), [-0.5, -1.5]),
}


@pytest.mark.parametrize("kind", READERS)
def test_entries_of_earlier_versions_are_read(tmp_path, kind):
    read, value = READERS[kind]
    place(tmp_path).parent.mkdir()
    place(tmp_path).write_text(json.dumps(value))
    found = Cache(tmp_path).get_json(KEY, read)
    assert (_plain(found) if isinstance(found, Answer) else found) == value


WRONG = [
    None, True, 3, "x", [], {}, [1], [1.0], [1.0, "x"], [1.0, None], {"result": 3}, {"text": 3, "reason": "end"},
    {"text": "x"}, {"text": "x", "reason": "tired"}, {"text": "x", "reason": []}, {"reason": "end"},
    AUDIO | {"samples": "24000"}, AUDIO | {"samples": -1}, AUDIO | {"samples": True}, AUDIO | {"samples": 2**70},
    AUDIO | {"descriptive": 3}, AUDIO | {"descriptive": [[1] * 6] * 7}, AUDIO | {"descriptive": [["x"] * 6] * 8},
    AUDIO | {"structural": [[10**6] * 13] * 8}, AUDIO | {"structural": [[-1] * 13] * 8}, AUDIO | {"more": 1},
    AUDIO | {"structural": [[2**70] * 13] * 8}, AUDIO | {"structural": [[1] * 13] * 7 + [[1] * 12]},
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("kind", READERS)
def test_wrong_values_are_made_again(tmp_path, kind, value):
    cache = Cache(tmp_path)
    cache.put_json(KEY, value)
    assert cache.get_json(KEY, READERS[kind][0]) is None and cache.damaged == 1


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.9])
def test_a_sound_that_was_cut_is_made_again(tmp_path, kept):
    content = flac(np.random.default_rng(0).uniform(-0.5, 0.5, 24_000))
    assert len(samples(content)) == 24_000
    with pytest.raises(ValueError):
        samples(content[: kept if isinstance(kept, int) else int(len(content) * kept)])


@pytest.fixture(scope="module")
def builder(model):
    return ItemBuilder(TokenStore(model / "../tokens"))


@pytest.fixture(scope="module")
def uniaudio(model):
    return UniAudio.from_pretrained(model)


def test_an_answer_holds_what_the_scores_of_its_task_read(builder, uniaudio, tmp_path):
    runner = ModelRunner.trained(uniaudio, Cache(tmp_path))
    task = load_task("sound_2_way")
    items = builder.items(task, 0, 2)
    for item, answer in zip(items, runner.answer(task, items), strict=True):
        assert isinstance(answer.text, str) and answer.waveform is None and answer.likelihood is None
        assert set(answer.log_probabilities) == {"likeliest class"}
        assert len(answer.log_probabilities["likeliest class"]) == len(item.targets["likeliest class"].phrases) == 2
    task = load_task("text_only")
    items = builder.items(task, 0, 2)
    for item, answer in zip(items, runner.answer(task, items), strict=True):
        nats, tokens = answer.likelihood
        assert answer.reason == "scored" and answer.content is None
        assert nats > 0 and tokens == len(uniaudio.text_tokenizer.encode(item.answer)) + 1


def test_a_codec_answers_with_tokens_and_their_waveform(builder, uniaudio, tmp_path):
    runner = CodecRunner(uniaudio.codec, Cache(tmp_path))
    task = load_task("codec_sound")
    items = builder.items(task, 0, 2)
    answers = runner.answer(task, items)
    assert [answer.tokens.num_samples for answer in answers] == [len(item.recording) for item in items]
    for answer in answers:
        (decoded,) = runner.decoder.waveforms([answer.tokens])
        assert np.array_equal(answer.waveform, decoded) and len(decoded) == answer.tokens.num_samples


def test_what_the_same_weights_answered_is_cached_and_other_weights_answer_anew(builder, uniaudio, tmp_path):
    task, cache = load_task("sound_caption"), Cache(tmp_path)
    items = builder.items(task, 0, 2)
    first = ModelRunner.trained(uniaudio, cache).answer(task, items)
    assert cache.hits == 0
    assert ModelRunner.trained(uniaudio, cache).answer(task, items) == first and cache.hits == 2
    ModelRunner.untrained(uniaudio, cache).answer(task, items)
    assert cache.hits == 2


SEPARATION = EvalTask(
    "separation", 1, "", "", "separation", Data("mixture", "train"),
    (Score(name="likeness", metric="si_sdr", scorer="waveform"),),
)  # fmt: skip


class Answering:
    """Stands for a model: remembers what it is asked, and answers each question with tokens of its own."""

    def __init__(self, codec):
        self.codec, self.asked = codec, []

    def complete(self, sentences, roles, settings, seeds):
        made = []
        for sentence, role, seed in zip(sentences, roles, seeds, strict=True):
            self.asked.append(sentence)
            tokens = random_tokens(9_600, seed, self.codec.fingerprint)
            made.append(Completion(Segment(role, tokens), "end"))
        return made


def test_each_part_of_a_mixture_is_asked_for_after_those_before_it(tmp_path):
    items = ItemBuilder(tiny_store()).items(SEPARATION, 0, None)
    model = Answering(CODEC)
    runner = ModelRunner(model, "weights", Cache(tmp_path))
    answers = runner._in_turn(SEPARATION, items)
    first, second = model.asked
    assert first.segments == items[0].sentence.segments == second.segments[:-1]
    assert second.segments[-1].content.equal(answers[0].tokens) and not second.segments[-1].is_target
    assert not answers[0].tokens.equal(answers[1].tokens)
    again = runner._in_turn(SEPARATION, items)
    assert all(a.tokens.equal(b.tokens) for a, b in zip(again, answers, strict=True)) and len(model.asked) == 2


def test_two_items_that_ask_the_same_keep_answers_of_their_own(tmp_path):
    task = load_task("tts")
    (item,) = ItemBuilder(tiny_store()).items(replace(task, data=Data("speech", "train")), 0, 1)
    items, model = [replace(item, id=name) for name in ("one", "two", "three")], Answering(CODEC)
    first = ModelRunner(model, "weights", Cache(tmp_path)).answer(task, items)
    assert len({tuple(answer.tokens["structural"].flatten().tolist()) for answer in first}) == 3
    again = ModelRunner(model, "weights", Cache(tmp_path)).answer(task, items)
    assert all(a.tokens.equal(b.tokens) for a, b in zip(first, again, strict=True)) and len(model.asked) == 3


def test_parts_are_compared_with_those_that_they_are_nearest_to(tmp_path):
    store = tiny_store()
    waves = [np.sin(2 * np.pi * hz * np.arange(24_000) / 24_000).astype(np.float32) / 2 for hz in (200, 3_000)]
    items = []
    for item, wave in zip(ItemBuilder(store).items(SEPARATION, 0, None), waves, strict=True):
        path = tmp_path / f"{item.part}.wav"
        soundfile.write(path, wave, 24_000)
        items.append(replace(item, clip=replace(item.clip, path=str(path))))
    low, high = (Answer(None, "end", wave) for wave in waves)
    assert [answer.waveform is low.waveform for answer in matched(items, [low, high])] == [True, False]
    assert [answer.waveform is low.waveform for answer in matched(items, [high, low])] == [True, False]
    lacking = matched(items, [Answer(None, "end"), low])
    assert lacking[0].waveform is low.waveform and lacking[1].waveform is None
