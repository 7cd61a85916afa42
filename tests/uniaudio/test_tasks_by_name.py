"""speak, compose, transcribe and describe from Python: what the command line does, without files or printing."""

import numpy as np
import pytest
import soundfile
import torch

import uniaudio
from codec.audio.waveform import load_audio
from codec.io.errors import UserError
from tests.factories.uniaudio import save_tiny_model
from uniaudio.requests import COMPOSITION, SPEECH, SoundSampling, composition_task, speech_task

SHORT = SoundSampling(0.2, 0.2, max_seconds=1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return uniaudio.load(save_tiny_model(tmp_path_factory.mktemp("model") / "model"), "cpu")


def test_a_sound_is_its_tokens_decoded_and_the_same_for_the_same_seed(model, tmp_path):
    once, again = (model.speak("three seven", sampling=SHORT, steps=1, seed=3) for _ in range(2))
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


def test_defaults_of_speech_and_music_differ_in_temperature_alone(model):
    assert SPEECH.temperature < COMPOSITION.temperature and SPEECH.guidance == COMPOSITION.guidance
    settings = model.settings_of(SPEECH)
    assert settings.guidance_of("descriptive") == 2.0 and settings.guidance_of("structural") == 1.0
    assert settings.temperature_of("structural") == SPEECH.later_temperature and settings.max_seconds == 15.0


def test_compose_takes_words_that_the_model_does_not_know(model):
    with pytest.warns(UserWarning, match="left out"):
        made = model.compose("a slow piano ☃", sound=True, sampling=SHORT, steps=1)
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
