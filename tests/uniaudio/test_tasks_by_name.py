"""speak, compose, transcribe and describe from Python: what the command line does, without files or printing."""

from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import uniaudio
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from tests.factories.uniaudio import save_tiny_model
from uniaudio.requests import composition_task, speech_task

SHORT: dict[str, Any] = {"temperature": 0.2, "max_seconds": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return uniaudio.load(save_tiny_model(tmp_path_factory.mktemp("model") / "model"), "cpu")


def test_a_sound_is_its_tokens_decoded_and_the_same_for_the_same_seed(model, tmp_path):
    once, again = (model.speak("three seven", **SHORT, steps=1, seed=3) for _ in range(2))
    assert torch.equal(once.waveform, again.waveform) and len(once.waveform) == once.tokens.num_samples
    assert torch.equal(once.waveform, model.waveform(once.tokens, steps=1, seed=3))
    once.save(tmp_path / "out.wav")
    assert len(load_audio(tmp_path / "out.wav")) == len(once.waveform)
    with pytest.raises(UserError, match="out.wav"):
        once.save(tmp_path / "out.wav")


def test_the_task_follows_from_what_is_given():
    assert speech_task("one") == ("tts", {"text": "one"})
    assert speech_task("one", "a low voice") == ("instruct_tts", {"caption": "a low voice", "text": "one"})
    assert composition_task("rain", sound=True) == ("sound_generation", {"caption": "rain"})
    for empty in (speech_task, composition_task):
        with pytest.raises(UserError, match="is empty"):
            empty(" ")


def test_how_a_task_is_sampled_stands_in_the_models_folder(tmp_path):
    model = uniaudio.load(save_tiny_model(tmp_path / "first"), "cpu")
    plain = model.settings_of("tts")
    assert (plain.temperature, plain.top_k, plain.guidance, plain.max_seconds) == (0.9, 50, 1.0, 15.0)
    model.model.generation_config.sampling = {
        "all": {"top_k": 30, "guidance": 2.0},
        "tts": {"temperature": 0.2, "max_seconds": 4.0},
        "music_generation": {
            "temperature": 0.5,
            "stream_temperature": {"structural": 0.4},
            "stream_guidance": {"structural": 1.5},
        },
    }
    model.save_pretrained(tmp_path / "second")
    model = uniaudio.load(tmp_path / "second", "cpu")
    speech, music = model.settings_of("tts"), model.settings_of("music_generation")
    assert (speech.temperature, speech.top_k, speech.guidance, speech.max_seconds) == (0.2, 30, 2.0, 4.0)
    assert speech.guidance_of("descriptive") == 2.0 and speech.guidance_of("structural") == 1.0
    assert (music.temperature, music.temperature_of("structural"), music.max_seconds) == (0.5, 0.4, 15.0)
    assert music.guidance_of("structural") == 1.5
    asked = model.settings_of("music_generation", temperature=0.7, max_seconds=2.0)
    assert asked.temperature_of("structural") == 0.7 and asked.top_k == 30 and asked.max_seconds == 2.0
    with pytest.raises(UserError, match="sampling: unknown key 'max_second'; did you mean 'max_seconds'"):
        model.speak("one", max_second=2.0)
    assert model.settings_of("sound_generation").temperature == 0.9
    model.model.generation_config.sampling = {"tts": {"temperatur3": 0.2}}
    with pytest.raises(UserError, match="generation_config.json: sampling: unknown key 'temperatur3'; did you mean"):
        model.settings_of("tts")


def test_compose_takes_words_that_the_model_does_not_know(model):
    with pytest.warns(UserWarning, match="left out"):
        made = model.compose("a slow piano ☃", sound=True, **SHORT, steps=1)
    assert made.reason in ("end", "max_rows", "context") and len(made.waveform)


def test_recordings_are_answered_from_files_and_waveforms(model, tmp_path):
    tone = 0.3 * np.sin(np.arange(24_000) / 9)
    soundfile.write(tmp_path / "tone.wav", tone, 24_000, subtype="FLOAT")
    of_file = model.transcribe(tmp_path / "tone.wav", max_rows=4)
    assert of_file == model.transcribe(torch.from_numpy(tone).float(), max_rows=4)
    assert isinstance(model.describe(tmp_path / "tone.wav", music=True, max_rows=4), str)


def test_silence_is_no_words_and_what_cannot_be_read_is_named(model, tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(24_000), 24_000)
    with pytest.warns(UserWarning, match="silent"):
        assert model.transcribe(tmp_path / "silent.wav") == ""
    with pytest.raises(UserError, match="nothing.wav"):
        model.transcribe(tmp_path / "nothing.wav")
    good, bad = model.answers_about([tmp_path / "silent.wav", tmp_path / "nothing.wav"], "asr")
    assert good.segment is None and isinstance(bad, UserError)
