"""Many files in one call, silence, and what is too short or too long to be heard."""

import numpy as np
import pytest
import soundfile

from uniaudio.recordings import is_silent


@pytest.fixture
def sound(tmp_path):
    def write(name, peak=0.3, seconds=0.5):
        samples = peak * np.sin(np.arange(int(24_000 * seconds)) / 9)
        soundfile.write(tmp_path / name, samples, 24_000, subtype="PCM_16")
        return tmp_path / name

    return write


@pytest.mark.parametrize("verb", ["transcribe", "describe"])
def test_each_good_file_is_answered_and_the_bad_ones_are_named(uniaudio, model_folder, sound, tmp_path, verb):
    good = [sound("a.wav"), sound("b\tc.wav")]
    bad = [tmp_path / "none.wav", tmp_path, sound("cut.wav"), sound("long.wav", seconds=60)]
    bad[2].write_bytes(bad[2].read_bytes()[:1000])
    files = [good[0], *bad, good[1], good[0]]
    done = uniaudio(verb, *files, "--model", model_folder, "--max-rows", 4)
    assert done.status == 2
    named = [line.split("\t")[0] for line in done.out.splitlines()]
    assert named == [str(good[0]), str(good[1]).replace("\t", "\\t"), str(good[0])]
    errors = [line for line in done.err.splitlines() if "not complete" not in line]
    assert len(errors) == len(bad)
    for error, file in zip(errors, bad, strict=True):
        assert error.startswith("uniaudio: ") and str(file) in error
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("peak", "silent"), [(0, True), (1e-4, True), (1e-3, False)])
def test_silence_is_not_words(uniaudio, model_folder, sound, peak, silent):
    file = sound("quiet.wav", peak)
    assert is_silent(file) == silent
    done = uniaudio("transcribe", file, "--model", model_folder, "--max-rows", 4)
    assert done.status == 0 and ("is silent" in done.err) == silent
    assert done.out == "\n" or not silent


def test_a_sound_of_a_moment_is_answered_with_a_warning(uniaudio, model_folder, sound):
    done = uniaudio("transcribe", sound("click.wav", seconds=0.02), "--model", model_folder, "--max-rows", 4)
    assert done.status == 0 and "0.020 s only" in done.err and len(done.out.splitlines()) == 1


@pytest.mark.parametrize("text", ["!!!", "\U0001f426", "два", "\u200f", "\t\n "])
@pytest.mark.parametrize("verb", ["speak", "compose"])
def test_nothing_to_say_is_refused(uniaudio, model_folder, tmp_path, verb, text):
    done = uniaudio(verb, text, "--model", model_folder, "-o", tmp_path / "x.wav")
    assert done.status == 2 and "nothing to" in done.err and not (tmp_path / "x.wav").exists()
    assert "Traceback" not in done.err


def test_words_are_said_as_the_model_knows_them(uniaudio, model_folder, tmp_path):
    made = {}
    for number, text in enumerate(["three seven one", "371", "THREE  Seven, one!", "three ☃ seven one"]):
        out = tmp_path / f"{number}.wav"
        options = ["--max-seconds", 0.4, "--steps", 1, "--model", model_folder, "-o", out]
        done = uniaudio("speak", text, *options)
        assert done.status == 0 and ("'☃', left out" in done.err) == ("☃" in text)
        made[text] = soundfile.read(out)[0].tobytes()  # the sound: files say when they were made
        assert soundfile.info(out).duration <= 0.4
    assert len(set(made.values())) == 1


def test_a_voice_that_cannot_be_read_is_refused(uniaudio, model_folder, tmp_path):
    done = uniaudio("speak", "one", "--voice", "☃", "--model", model_folder, "-o", tmp_path / "x.wav")
    assert done.status == 2 and "☃" in done.err
