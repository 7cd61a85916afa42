"""Solved examples before a request: read as what is asked is, in order, and as many as the context holds."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch

from codec.io.errors import UserError
from tests.factories.uniaudio import tiny_uniaudio

SHORT = {"temperature": 0.2, "max_seconds": 0.5}


@pytest.fixture(scope="module")
def model():
    return tiny_uniaudio()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings of half a second, and one that is long."""
    place = tmp_path_factory.mktemp("examples")
    for number, seconds in enumerate((0.5, 0.5, 0.5, 8.0)):
        soundfile.write(place / f"{number}.wav", 0.3 * np.sin(np.arange(24_000 * seconds) / (9 + number)), 24_000)
    return place


@pytest.fixture
def asked(model, monkeypatch):
    """The sentences that the model is asked to continue."""
    seen, complete = [], model.complete

    def spy(sentences, *rest):
        seen.extend(sentences)
        return complete(sentences, *rest)

    monkeypatch.setattr(model, "complete", spy)
    return seen


def contents(sentence):
    return [(s.role, s.content if s.is_text else s.content.num_samples) for s in sentence.segments]


def test_a_task_follows_its_examples(model, folder, asked):
    rows = [{"audio": folder / "0.wav", "answer": folder / "1.wav"}]
    made = model.perform("denoising", audio=folder / "2.wav", examples=rows, sampling=SHORT, steps=1)
    assert [role for role, _ in contents(asked[0])] == ["prompt", "audio", "audio", "audio"]
    for segment, number in zip(asked[0].segments[1:], (0, 1, 2), strict=True):
        assert segment.content.equal(model.tokens_of(folder / f"{number}.wav"))
    plain = model.perform("denoising", audio=folder / "2.wav", sampling=SHORT, steps=1)
    assert contents(asked[1])[0] == contents(asked[0])[0] and len(plain) == len(made) == 1
    assert len(asked[1].segments) == 2 and asked[1].segments[1].content.equal(asked[0].segments[3].content)
    waves = [
        {"audio": torch.from_numpy(soundfile.read(folder / "0.wav", dtype="float32")[0]), "answer": rows[0]["answer"]}
    ]
    model.perform("denoising", audio=folder / "2.wav", examples=waves, sampling=SHORT, steps=1)
    assert asked[2].segments[1].content.equal(asked[0].segments[1].content)


def test_a_folder_of_examples_is_read(model, folder, asked):
    rows = [{"audio": "0.wav", "answer": "THREE"}, {"audio": "1.wav", "answer": "seven"}]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model.transcribe(folder / "2.wav", max_rows=4, examples=folder)
    assert contents(asked[0])[1:] == [
        ("audio", 12_000), ("transcription", "three"), ("audio", 12_000), ("transcription", "seven"), ("audio", 12_000),
    ]  # fmt: skip
    assert model.answers_about([folder / "2.wav"], "asr", None, 4, folder)[0].segment is not None
    assert contents(asked[1]) == contents(asked[0])
    model.speak("one", examples=[{"text": "3", "answer": folder / "0.wav"}], steps=1, **SHORT)
    assert contents(asked[2])[1:] == [("transcription", "three"), ("audio", 12_000), ("transcription", "one")]
    model.compose("rain", sound=True, examples=[{"caption": "a dog", "answer": folder / "0.wav"}], steps=1, **SHORT)
    assert contents(asked[3])[1:] == [("caption", "a dog"), ("audio", 12_000), ("caption", "rain")]


def test_of_an_examples_voice_five_seconds_count_and_a_separation_has_several_answers(model, folder, asked):
    example = {"voice": folder / "3.wav", "text": "three", "answer": folder / "0.wav"}
    model.perform("prompt_tts", voice=folder / "1.wav", text="one", examples=[example], sampling=SHORT, steps=1)
    assert [(role, said) for role, said in contents(asked[0])[1:3]] == [
        ("audio_prompt", 120_000),
        ("transcription", "three"),
    ]
    example = {"audio": folder / "0.wav", "answer": [folder / "1.wav", folder / "2.wav"]}
    model.perform("separation", audio=folder / "2.wav", examples=[example], parts=2, sampling=SHORT, steps=1)
    assert [role for role, _ in contents(asked[1])] == ["prompt", *["audio"] * 4]
    assert [role for role, _ in contents(asked[2])] == ["prompt", *["audio"] * 5]


def test_too_many_examples_are_refused_with_how_many_fit(folder):
    model = tiny_uniaudio(context=200)
    example = {"audio": folder / "0.wav", "answer": "three"}
    with pytest.raises(UserError, match="50 examples are too many: the model's context of 200 rows") as stop:
        model.transcribe(folder / "1.wav", examples=[example] * 50)
    fit = int(re.search(r"give at most (\d+)", str(stop.value))[1])
    assert fit > 1
    model.transcribe(folder / "1.wav", examples=[example] * fit, max_rows=4)
    with pytest.raises(UserError, match=f"at most {fit}"):
        model.transcribe(folder / "1.wav", examples=[example] * (fit + 1))
    with pytest.raises(UserError, match="no example fits: .* not even one .*; give shorter ones"):
        model.transcribe(folder / "1.wav", examples=[{"audio": folder / "3.wav", "answer": "three"}])


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([{"audio": "0.wav"}], "example 1: the part 'answer' is missing; an example of 'asr' has audio, answer"),
        ([{"audio": "none.wav", "answer": "one"}], "none.wav"),
        ("none", "there is no such folder of examples"),
    ],
)
def test_what_is_no_example_is_said(model, folder, examples, said):
    with pytest.raises(UserError, match=said):
        model.transcribe(folder / "0.wav", examples=examples)


def test_a_model_says_which_examples_it_never_saw(model, folder, monkeypatch):
    monkeypatch.setattr(model.model.config, "tasks", ["asr", "tts", "few_shot:tts", "few_shot:audio_qa:instrument"])
    assert model.tasks_with_examples == ("tts", "audio_qa")
    with pytest.warns(UserWarning, match="not trained with examples of 'asr'; it was with those of tts, audio_qa"):
        model.transcribe(folder / "0.wav", examples=[{"audio": folder / "1.wav", "answer": "one"}], max_rows=4)
