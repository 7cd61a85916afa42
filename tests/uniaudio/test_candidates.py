"""Of several sounds the model keeps the one that it understands best."""

from dataclasses import replace
from typing import Any

import pytest

import uniaudio
from auditory_sentences.builders.tasks import TASKS, reading_tasks
from auditory_sentences.sentence import AuditorySentence, Segment
from cli.chat.settings import Settings
from codec.io.errors import UserError
from tests.factories.uniaudio import save_tiny_model

SHORT: dict[str, Any] = {"temperature": 1.0, "max_seconds": 0.6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return uniaudio.load(save_tiny_model(tmp_path_factory.mktemp("model") / "model"), "cpu")


def test_which_tasks_read_back_what_a_task_is_told():
    found = {name: [(reader.name, part.role) for reader, part in reading_tasks(task)] for name, task in TASKS.items()}
    words, lyric = ("asr", "transcription"), ("lyric_recognition", "lyric")
    assert {name: readers for name, readers in found.items() if readers} == {
        "tts": [words],
        "instruct_tts": [("speech_caption", "caption"), words],
        "prompt_tts": [words],
        "prompt_instruct_tts": [("speech_caption", "caption"), words],
        "speech_with_sound": [("sound_caption", "caption")],
        "song_generation": [lyric],
        "sound_generation": [("sound_caption", "caption")],
        "music_generation": [("music_caption", "caption")],
    }


def test_the_candidate_is_kept_from_which_what_was_asked_is_likeliest(model):
    words, count, seed = "three seven one", 5, 3
    alone = [model.speak(words, seed=seed + k, **SHORT) for k in range(count)]
    assert len({tuple(sound.tokens["structural"].flatten().tolist()) for sound in alone}) > 1
    heard = [model.tokens_of(model.waveform(sound.tokens, seed=seed + k)) for k, sound in enumerate(alone)]
    asked = [model.request("asr", audio=tokens).sentence for tokens in heard]
    scores = [score for (score,) in model.choose(asked, "transcription", [[words]] * count)]
    ended = [sound.reason == "end" for sound in alone]
    best = max(range(count), key=lambda k: (ended[k], scores[k]))
    kept = model.speak(words, seed=seed, candidates=count, **SHORT)
    assert kept.tokens.equal(alone[best].tokens)
    assert model.speak(words, seed=seed, candidates=1, **SHORT).tokens.equal(alone[0].tokens)


def test_a_voice_is_chosen_by_its_caption_and_its_words(model):
    contents = {"caption": "three", "text": "seven one"}
    asked = model.request("instruct_tts", **contents)
    settings = model.settings_of("instruct_tts", candidates=4, **SHORT)
    kept = model.complete([asked.sentence], "audio", settings, [0])[0].tokens
    scores = []
    for seed in range(4):
        made = model.complete([asked.sentence], "audio", replace(settings, candidates=1), [seed])[0]
        tokens = model.tokens_of(model.waveform(made.tokens, seed=seed))
        read = {"speech_caption": ("caption", "three"), "asr": ("transcription", "seven one")}
        score = 0.0
        for name, (role, answer) in read.items():
            score += model.choose([model.request(name, audio=tokens).sentence], role, [[answer]])[0][0]
        scores.append((made.reason == "end", score, made.tokens))
    assert kept.equal(max(scores, key=lambda s: s[:2])[2])


def test_a_request_in_a_batch_keeps_what_it_keeps_alone(model):
    sentences = [model.request("tts", text=text).sentence for text in ("three", "seven one")]
    sentences.append(model.request("music_generation", caption="a slow piano melody").sentence)
    settings = model.settings_of("tts", candidates=3, **SHORT)
    together = model.complete(sentences, "audio", settings, [5, 6, 7])
    for sentence, seed, made in zip(sentences, (5, 6, 7), together, strict=True):
        alone = model.complete([sentence], "audio", settings, [seed])[0]
        assert alone.tokens.equal(made.tokens) and alone.reason == made.reason


def test_after_examples_the_last_words_are_read_back(model):
    one, two = model.speak("three", **SHORT), model.request("tts", text="seven one")
    example = model.request("tts", text="three").sentence
    said = Segment("audio", one.tokens)
    after = AuditorySentence((*example.segments, said, *two.sentence.segments), "few_shot:tts:1:clip")
    settings = model.settings_of("tts", candidates=2, **SHORT)
    kept = model.complete([after], "audio", settings, [0])[0].tokens
    made = [model.complete([after], "audio", replace(settings, candidates=1), [k])[0] for k in range(2)]
    heard = [model.tokens_of(model.waveform(m.tokens, seed=k)) for k, m in enumerate(made)]
    asked = [model.request("asr", audio=tokens).sentence for tokens in heard]
    scores = model.choose(asked, "transcription", [["seven one"]] * 2)
    best = max(range(2), key=lambda k: (made[k].reason == "end", scores[k][0]))
    assert kept.equal(made[best].tokens)


def test_where_nothing_reads_back_what_is_asked_it_says_so(model):
    recording = model.speak("three", **SHORT).tokens
    for task, contents in (("denoising", {"audio": recording}), ("spoken_answer", {"audio": recording})):
        with pytest.raises(UserError, match=f"{task}.*cannot choose among candidates"):
            model.perform(task, sampling={"candidates": 2, **SHORT}, **contents)
    with pytest.raises(UserError, match="leave candidates at 1"):
        model.stream(model.request("tts", text="three").sentence, model.settings_of("tts", candidates=2), 0)


def test_a_model_that_never_learned_to_read_cannot_choose(tmp_path):
    model = uniaudio.load(save_tiny_model(tmp_path / "model"), "cpu")
    model.model.config.tasks = ("tts", "music_generation", "music_caption")
    with pytest.raises(UserError, match="no task that reads back"):
        model.speak("three", candidates=2, **SHORT)
    assert model.compose("a slow piano melody", candidates=2, **SHORT).tokens is not None


def test_candidates_of_all_tasks_in_a_models_folder_are_for_those_that_are_told_something(tmp_path):
    model = uniaudio.load(save_tiny_model(tmp_path / "model"), "cpu")
    model.model.generation_config.sampling = {"all": {"candidates": 3}}
    for name, task in TASKS.items():
        assert model.settings_of(name).candidates == (3 if reading_tasks(task) else 1), name
    assert Settings.of_model(model, 0).candidates == 3
    assert model.settings_of("denoising", candidates=2).candidates == 2  # asked for, and refused when it is done


def test_no_such_number_of_candidates(model):
    for count in (0, -1, 101, 2.5, True):
        with pytest.raises(UserError, match="candidates"):
            model.speak("three", candidates=count)
