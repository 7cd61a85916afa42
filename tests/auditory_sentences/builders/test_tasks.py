"""Every task has the published form; training and evaluation see the same sentence; questions are answerable."""

import pytest
import torch

from auditory_sentences.builders.catalogue import Catalogue, label_values
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import (
    TASKS,
    build,
    build_around,
    cast_of,
    find_task,
    is_eligible,
    request,
    request_of,
)
from auditory_sentences.corpora.clip import Clip
from auditory_sentences.rng import KeyedRng
from auditory_sentences.sentence import to_rows
from codec.io.errors import UserError
from tests.factories.store import TinyStore, random_tokens, tiny_layout, tiny_store, tiny_tokenizer

# Segments after the prompt; * marks what is learned (published model, §B.2).
FORMS = {
    "asr": "audio transcription*",
    "tts": "transcription audio*",
    "instruct_tts": "caption transcription audio*",
    "prompt_tts": "audio_prompt transcription audio*",
    "prompt_instruct_tts": "audio_prompt caption transcription audio*",
    "voice_conversion": "audio_prompt audio audio*",
    "speech_with_sound": "caption transcription audio*",
    "denoising": "audio audio*",
    "separation": "audio audio* audio*",
    "speaker_extraction": "audio_prompt audio audio*",
    "dereverberation": "audio audio*",
    "speech_editing": "text audio audio*",
    "spoken_answer": "audio audio*",
    "written_answer": "audio text*",
    "continuation": "audio audio*",
    "speech_caption": "audio caption*",
    "lyric_recognition": "audio lyric*",
    "song_generation": "lyric audio*",
    "sound_caption": "audio caption*",
    "sound_generation": "caption audio*",
    "music_caption": "audio caption*",
    "music_generation": "caption audio*",
    "audio_qa": "text audio text*",
    "audio_yes_no": "text audio text*",
    "analysis": "audio text*",
    "descriptive_to_structural": "descriptive structural*",
    "structural_to_descriptive": "structural descriptive*",
    "audio_only": "audio*",
    "text_only": "text*",
}
# The generation tasks in which the published loader hides conditions (§B.4).
GUIDED = {"tts", "instruct_tts", "prompt_tts", "prompt_instruct_tts", "speech_with_sound", "speech_editing"} | {
    f"{kind}_generation" for kind in ("song", "sound", "music")
}


@pytest.fixture(scope="module")
def store():
    store = tiny_store()
    made_of_one = {"kind": "speech", "split": "train", "text": "zero", "parts": ("train-speech-0",)}
    talk = {"kind": "speech", "split": "train", "group": "talk"}
    more = [
        Clip("song", "x.wav", "music", "train", text="la la", caption="a song"),
        Clip("slower", "x.wav", **made_of_one, instruction="speak more slowly"),
        Clip("hall", "x.wav", **made_of_one),
        Clip("question", "x.wav", **talk, text="what comes next?"),
        Clip("answer", "x.wav", **talk, text="two", position=1, instruction="what comes next?"),
    ]
    return TinyStore(store.clips + more, [n / 24_000 for n in store.num_samples] + [1.0] * len(more))


@pytest.fixture(scope="module")
def bank(store):
    return PromptBank.load().with_label_values(label_values(store.clips))


@pytest.fixture(scope="module")
def catalogue(store):
    return Catalogue(store, "train")


def clips_for(store, task, bank):
    return [store[i] for i, clip in enumerate(store.clips) if is_eligible(task, clip, bank)]


def places_for(catalogue, task, bank):
    return [i for i in catalogue.members if cast_of(task, catalogue, i, bank)]


def form(segments):
    return " ".join(segment.role + "*" * segment.is_target for segment in segments)


@pytest.mark.parametrize("name", TASKS)
def test_form_of_every_task(name, catalogue, bank):
    task, unprompted = TASKS[name], name in ("audio_only", "text_only")
    places = places_for(catalogue, task, bank)
    assert places
    for i in places:
        sentence = build_around(task, catalogue, i, KeyedRng(i), bank)
        assert form(sentence.segments) == ("" if unprompted else "prompt ") + FORMS[name]
        assert sentence.name == f"{name}:{catalogue.clip(i).id}"
    assert task.generates_audio == (name in GUIDED)


@pytest.mark.parametrize("name", [name for name in FORMS if FORMS[name].count("audio*") == 1 and " " in FORMS[name]])
def test_a_task_up_to_its_descriptive_tokens_is_the_beginning_of_the_task(name, catalogue, bank):
    tokenizer = tiny_tokenizer()
    layout = tiny_layout(tokenizer)
    task = find_task(f"{name}:descriptive")
    assert task.generates_audio == (name in GUIDED)
    for i in places_for(catalogue, task, bank):
        short, whole = (build_around(t, catalogue, i, KeyedRng(i), bank) for t in (task, TASKS[name]))
        assert form(short.segments) == "prompt " + FORMS[name].replace("audio*", "descriptive*")
        rows, whole = (to_rows(sentence, layout, tokenizer) for sentence in (short, whole))
        assert len(rows) < len(whole)
        for part in ("ids", "mask", "loss"):
            assert torch.equal(getattr(rows, part), getattr(whole, part)[: len(rows)])


def test_a_task_of_one_kind_of_clip(catalogue, bank):
    """Alone, or with a stream or a label, in any order."""
    for name in ("sound_generation", "sound_generation:descriptive", "audio_qa:class", "continuation"):
        base, _, detail = name.partition(":")
        for kind in TASKS[base].kinds:
            ways = {f"{base}:{kind}"} if not detail else {f"{base}:{kind}:{detail}", f"{base}:{detail}:{kind}"}
            for task in map(find_task, ways):
                assert task.kinds == {kind} and task.name in ways and task.base == base
                assert (task.parts, task.label) == (find_task(name).parts, find_task(name).label)
                assert {catalogue.clip(i).kind for i in places_for(catalogue, task, bank)} <= {kind}


def test_forms_are_listed_for_every_task():
    assert set(FORMS) == set(TASKS)


def test_contents_are_the_clips_own(store, bank):
    clip = clips_for(store, TASKS["instruct_tts"], bank)[0]
    _, caption, words, audio = build("instruct_tts", clip, KeyedRng(), bank).segments
    assert (caption.content, words.content) == (clip.caption, clip.text)
    assert audio.content.equal(clip.tokens)


def test_same_draws_same_sentence_other_draws_other_prompt(store, bank):
    clip = store[0]
    sentences = [build("asr", clip, KeyedRng(i), bank) for i in range(100)]
    assert {s.segments[0].content for s in sentences} == set(bank.prompts["asr"])
    again = build("asr", clip, KeyedRng(5), bank)
    assert [s.content for s in again.segments[::2]] == [s.content for s in sentences[5].segments[::2]]


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"audio_only", "text_only"}))
def test_request_is_the_training_sentence_without_its_end(name, catalogue, bank):
    """What evaluation asks is, segment for segment, what training showed before the answer."""
    sentence = build_around(TASKS[name], catalogue, places_for(catalogue, TASKS[name], bank)[0], KeyedRng(1), bank)
    asked = request_of(sentence)
    assert [(s.role, s.content) for s in asked.sentence.segments] == [
        (s.role, s.content) for s in sentence.segments[:-1]
    ]
    assert not any(segment.is_target for segment in asked.sentence.segments)
    assert (asked.role, asked.reference) == (sentence.segments[-1].role, sentence.segments[-1].content)


@pytest.mark.parametrize("name", ["audio_only", "text_only"])
def test_no_request_without_a_condition(name, store, bank):
    with pytest.raises(ValueError, match="one segment only"):
        request_of(build(name, store[0], KeyedRng(), bank))
    with pytest.raises(ValueError, match="made of nothing"):
        request(name)


def test_a_request_of_ones_own_has_the_trained_form(store, bank):
    clip = clips_for(store, TASKS["audio_qa"], bank)[0]
    trained = request_of(build("audio_qa", clip, KeyedRng(), bank))
    own = request("audio_qa", question="Which instrument plays?", audio=clip.tokens)
    assert form(own.sentence.segments) == form(trained.sentence.segments)
    assert own.role == trained.role and own.reference is None
    assert own.sentence.segments[0].content in bank.prompts["audio_qa"]
    assert own.sentence == request("audio_qa", question="Which instrument plays?", audio=clip.tokens).sentence


@pytest.mark.parametrize("contents", [{}, {"text": "hi"}, {"text": "hi", "caption": "x", "audio": "y"}])
def test_a_request_names_what_it_is_made_of(contents):
    with pytest.raises(ValueError, match="made of \\['caption', 'text'\\]"):
        request("instruct_tts", **contents)


def test_questions_have_the_labels_answer(store, bank):
    for clip in clips_for(store, TASKS["audio_qa"], bank):
        for seed in range(20):
            _, question, _, answer = build("audio_qa", clip, KeyedRng(seed), bank).segments
            assert answer.content in clip.labels.values()
            assert "{" not in question.content
    clip = next(c for c in clips_for(store, TASKS["audio_qa"], bank) if c.kind == "music")
    asked = [build("audio_qa:instrument", clip, KeyedRng(seed), bank).segments for seed in range(40)]
    assert {segments[-1].content for segments in asked} == {clip.labels["instrument"]}
    assert len({segments[1].content for segments in asked}) >= 4  # phrasings
    with_options = [segments[1].content for segments in asked if " or " in segments[1].content]
    assert with_options and all(clip.labels["instrument"] in question for question in with_options)


def test_yes_and_no_are_true_and_balanced(store, bank):
    clip = next(c for c in clips_for(store, TASKS["audio_yes_no"], bank) if c.kind == "music")
    truth, answers = clip.labels["instrument"], []
    for seed in range(300):
        _, question, _, answer = build("audio_yes_no:instrument", clip, KeyedRng(seed), bank).segments
        assert (truth in question.content) == (answer.content == "yes")
        answers.append(answer.content)
    assert 110 < answers.count("yes") < 190


def test_numbers_names_and_constants_are_not_asked_about(store):
    values = label_values(store.clips)
    assert set(values) == {"gender", "speed", "class", "instrument", "tempo"}  # "bpm" is measured
    many = [Clip(str(i), "x", "sound", "train", labels={"id": f"n{i}", "only": "this"}) for i in range(100)]
    assert label_values(many) == {}


def test_clips_that_lack_something_are_not_eligible(bank):
    silent = Clip("a", "x.wav", "speech", "train", caption="a voice")
    assert not is_eligible(TASKS["asr"], silent, bank)
    assert is_eligible(TASKS["speech_caption"], silent, bank)
    assert not is_eligible(TASKS["sound_caption"], silent, bank)
    assert not is_eligible(TASKS["audio_qa"], silent, bank)
    with pytest.raises(UserError, match="'a' .*lacks.*'asr'"):
        build("asr", silent, KeyedRng(), bank)


def test_unknown_tasks_name_the_nearest():
    with pytest.raises(UserError, match="no task 'music_captions'; did you mean 'music_caption'"):
        find_task("music_captions")
    with pytest.raises(UserError, match="known tasks: asr"):
        find_task("zzzzzz")
    with pytest.raises(UserError, match="asks about no label"):
        find_task("asr:gender")
    with pytest.raises(UserError, match="asks about no label"):
        find_task("asr:speech")  # it takes no other kind
    with pytest.raises(UserError, match="asks about no label"):
        find_task("audio_qa:class:gender")


def test_audio_of_a_request_is_checked():
    with pytest.raises(ValueError, match="holds AudioTokens"):
        request("asr", audio="not tokens")
    assert request("asr", audio=random_tokens(24_000)).role == "transcription"
