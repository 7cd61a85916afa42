"""Examples of a person's own make the very sentence that few-shot training builds of the same clips."""

import pytest

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.examples import (
    example_parts,
    example_segments,
    has_several_answers,
    require_example,
    with_examples,
)
from auditory_sentences.builders.few_shot import Episodes
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, cast_of, find_task, request, request_of
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import to_rows
from codec.io.errors import UserError
from tests.factories.store import tiny_layout, tiny_store, tiny_tokenizer

# What each task is given, and its answer, read off a clip by hand.
GIVEN = {
    "asr": ({"audio": "tokens"}, "text"),
    "tts": ({"text": "text"}, "tokens"),
    "instruct_tts": ({"caption": "caption", "text": "text"}, "tokens"),
    "speech_caption": ({"audio": "tokens"}, "caption"),
    "sound_caption": ({"audio": "tokens"}, "caption"),
    "sound_generation": ({"caption": "caption"}, "tokens"),
    "music_caption": ({"audio": "tokens"}, "caption"),
    "music_generation": ({"caption": "caption"}, "tokens"),
}


@pytest.fixture(scope="module")
def pool():
    return Catalogue(tiny_store(speech=20, music=24, sounds=24), "train")


@pytest.fixture
def episodes(pool, monkeypatch):
    """Episodes that keep which clips they drew as examples."""
    made = Episodes(pool, PromptBank.load().with_label_values(pool.label_values))
    draw = made._examples

    def kept(*given, **more):
        made.drawn = draw(*given, **more)
        return made.drawn

    monkeypatch.setattr(made, "_examples", kept)
    return made


def asked_by_hand(task, prompt, query, examples):
    asked = request(task, prompt=prompt, **query)
    return with_examples(asked, [example_segments(find_task(task), example) for example in examples])


def require_same(one, other):
    """The same segments, and so the same rows of the model."""
    text = tiny_tokenizer()
    assert [(s.role, s.content) for s in one.sentence.segments if s.is_text] == [
        (s.role, s.content) for s in other.sentence.segments if s.is_text
    ]
    rows, others = (to_rows(asked.sentence, tiny_layout(text), text) for asked in (one, other))
    assert rows.ids.equal(others.ids) and rows.mask.equal(others.mask) and rows.loss.equal(others.loss)
    assert one.role == other.role


@pytest.mark.parametrize("task", GIVEN)
@pytest.mark.parametrize("shots", [1, 3])
def test_the_request_is_the_sentence_of_training(pool, episodes, task, shots):
    parts, answer = GIVEN[task]
    assert set(parts) | {"answer"} == set(example_parts(find_task(task)))
    for i in episodes.eligible(find_task(task))[:3]:
        query = pool.stored(i)
        trained = request_of(episodes.from_task(task, query, shots, KeyedRng(i)))
        clips = [pool.stored(cast[""][0]) for cast in episodes.drawn]
        examples = [{name: getattr(clip, of) for name, of in {**parts, "answer": answer}.items()} for clip in clips]
        given = {name: getattr(query, of) for name, of in parts.items()}
        require_same(asked_by_hand(task, trained.sentence.segments[0].content, given, examples), trained)


def test_so_it_is_where_other_clips_have_a_part(pool, episodes):
    """The words of another voice are given, and the voice is a stretch that is drawn: taken from what was built."""
    task = find_task("voice_conversion")
    found = 0
    for i in episodes.eligible(task)[:8]:
        cast = pool.stored_cast(cast_of(task, pool, i, episodes.bank, KeyedRng(i)))
        trained = request_of(episodes.from_task(task, pool.stored(i), 1, KeyedRng(i), cast=cast))
        prompt, shown_voice, *_, voice, _ = trained.sentence.segments
        example = pool.stored_cast(episodes.drawn[0])
        solved = {"voice": shown_voice.content, "audio": example.clips["words"][0].tokens}
        solved["answer"] = example.clips[""][0].tokens
        given = {"voice": voice.content, "audio": cast.clips["words"][0].tokens}
        require_same(asked_by_hand(task.name, prompt.content, given, [solved]), trained)
        found += 1
    assert found


def test_every_task_that_is_given_something_has_examples_with_an_answer():
    for task in TASKS.values():
        if task.name in ("audio_only", "text_only"):
            with pytest.raises(UserError, match="takes no examples"):
                example_parts(task)
        else:
            assert list(example_parts(task))[-1] == "answer"
            assert has_several_answers(task) == (task.name == "separation")


def test_several_answers_follow_one_another(pool):
    mixture, one, other = (pool.stored(i).tokens for i in range(3))
    segments = example_segments(find_task("separation"), {"audio": mixture, "answer": [one, other]})
    assert [s.content for s in segments] == [mixture, one, other] and not any(s.is_text for s in segments)


@pytest.mark.parametrize(
    ("task", "example", "said"),
    [
        ("asr", {"audio": 1}, "row 3: the part 'answer' is missing; an example of 'asr' has audio, answer"),
        ("asr", {"audoi": 1, "answer": 1}, "no part 'audoi'; did you mean 'audio'"),
        ("edit", {}, "no task 'edit'"),
        ("prompt_tts", {"voice": 1, "answer": 1}, "an example of 'prompt_tts' has voice, text, answer"),
        ("asr", {"audio": 1, "answer": ["a", "b"]}, "'answer' is a list of 2"),
        ("separation", {"audio": 1, "answer": []}, "'answer' is a list of 0"),
    ],
)  # fmt: skip
def test_what_is_no_example_is_said_with_the_names_that_are_needed(task, example, said):
    with pytest.raises(UserError) as stop:
        require_example(find_task(task), example, "row 3")
    assert said in str(stop.value)
