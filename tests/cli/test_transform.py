"""Verbs that make sound of recordings: what each is given, what it writes, what it refuses."""

import numpy as np
import pytest
import soundfile

from auditory_sentences.builders.tasks import TASKS
from cli.transform import VERBS
from codec.audio.waveform import write_audio
from tests.factories.codec import noise

GIVEN = {
    "clone": ["three one", "--voice", "{voice}"],
    "convert": ["{audio}", "--voice", "{voice}"],
    "denoise": ["{audio}"],
    "separate": ["{audio}"],
    "extract": ["{audio}", "--voice", "{voice}"],
    "edit": ["{audio}", "make it slower"],
    "continue": ["{audio}"],
    "answer": ["{audio}"],
    "sing": ["three one"],
}


TASK_OF = {"clone": "prompt_tts", "edit": "speech_editing", "sing": "song_generation"}


@pytest.fixture
def recordings(tmp_path):
    for name, seconds, seed in (("audio", 1, 0), ("voice", 8, 1)):
        write_audio(tmp_path / f"{name}.wav", 0.3 * noise(24_000 * seconds, seed=seed), 24_000)
    return tmp_path


def words(verb, folder, *more):
    return [verb, *(word.format(audio=folder / "audio.wav", voice=folder / "voice.wav") for word in GIVEN[verb]), *more]


def test_every_verb_is_tested_and_is_a_task():
    assert set(GIVEN) == set(VERBS)
    for verb, needs in (("clone", ("a", "b", "")), ("convert", ("a", "b")), ("separate", ("a",)), ("sing", ("a",))):
        task, contents = VERBS[verb](*needs)
        assert set(contents) == {part.content for part in TASKS[task].parts if not part.is_target}


@pytest.mark.parametrize("verb", [verb for verb in GIVEN if verb != "separate"])
def test_a_verb_writes_sound(uniaudio, model_folder, recordings, verb):
    out = recordings / "out.wav"
    asked = words(verb, recordings, "--model", model_folder, "--max-seconds", 0.5, "-o", out)
    done = uniaudio(*asked)
    assert done.status == 0 and "out.wav" in done.out, done.err
    assert soundfile.info(out).frames > 0
    assert ("have the consent" in done.err) == ("--voice" in asked)
    with soundfile.SoundFile(out) as sound:
        first = sound.read()
        assert sound.comment.startswith("synthetic: made by UniAudio") and "seed 0" in sound.comment
    assert uniaudio(*asked).status == 2  # what is there stays
    assert uniaudio(*asked, "--force").status == 0 and np.array_equal(soundfile.read(out)[0], first)  # the same seed


def test_examples_are_shown_first(uniaudio, model_folder, recordings, monkeypatch):
    """Of every verb: one that lacks a part is named before a model is loaded; those of a folder change the answer."""
    monkeypatch.chdir(recordings)
    (recordings / "examples.csv").write_text("audio,answer\naudio.wav,voice.wav\n")
    made = []
    for more in ((), ("--examples", "."), ("--examples", "examples.csv")):
        out = recordings / f"{len(made)}.flac"
        done = uniaudio(*words("denoise", recordings, "--model", model_folder, "--max-seconds", 1, "-o", out, *more))
        assert done.status == 0, done.err
        made.append(soundfile.read(out)[0])
    assert np.array_equal(made[1], made[2]) and not np.array_equal(made[0], made[1])
    for verb in TASK_OF:
        done = uniaudio(*words(verb, recordings, "--model", "no-model", "--examples", "examples.csv"))
        needed = ", ".join([*(part.content for part in TASKS[TASK_OF[verb]].parts if not part.is_target), "answer"])
        assert done.status == 2 and needed in done.err and "examples.csv, line 2" in done.err, done.err
    done = uniaudio(*words("separate", recordings, "--model", "no-model", "--examples", "examples.csv"))
    assert done.status == 2 and "line 2: 'answer' of 'separation' is a list of files" in done.err, done.err
    for verb in (["transcribe", "audio.wav"], ["describe", "audio.wav"], ["speak", "one"], ["compose", "rain"]):
        done = uniaudio(*verb, "--model", "no-model", "--examples", "nowhere")
        assert done.status == 2 and "nowhere: there is no such folder of examples" in done.err, done.err


def test_each_part_has_a_file(uniaudio, model_folder, recordings, monkeypatch):
    monkeypatch.chdir(recordings)
    done = uniaudio(*words("separate", recordings, "--model", model_folder, "--max-seconds", 0.4, "--parts", 3))
    assert done.status == 0, done.err
    assert sorted(path.name for path in recordings.glob("*separation*")) == [
        f"audio-separation-{i}.wav" for i in (1, 2, 3)
    ]
    assert uniaudio(*words("separate", recordings, "--model", model_folder, "--parts", 0)).status == 2


def test_of_a_voice_the_first_five_seconds_count(uniaudio, model_folder, recordings):
    wave, rate = soundfile.read(recordings / "voice.wav", dtype="float32")
    made = []
    for seconds in (8, 5, 2):
        soundfile.write(recordings / "voice.wav", wave[: seconds * rate], rate, subtype="FLOAT")
        out = recordings / f"{seconds}.wav"
        done = uniaudio(*words("clone", recordings, "--model", model_folder, "--max-seconds", 0.5, "-o", out))
        assert done.status == 0, done.err
        made.append(soundfile.read(out)[0])
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[1], made[2])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["clone", " ", "--voice", "{voice}"], "the text is empty"),
        (["clone", "one", "--voice", "missing.wav"], "missing.wav"),
        (["clone", "one"], "--voice"),
        (["edit", "{audio}", ""], "the instruction is empty"),
        (["denoise", "{audio}", "-o", "x.mp3"], "written as .wav or .flac"),
        (["denoise", "{audio}", "-o", "{audio}", "--force"], "audio.wav"),
        (["separate", "missing.wav"], "missing.wav"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(uniaudio, model_folder, recordings, asked, said):
    before = (recordings / "audio.wav").read_bytes()
    filled = [word.format(audio=recordings / "audio.wav", voice=recordings / "voice.wav") for word in asked]
    done = uniaudio(*filled, "--model", model_folder)
    assert done.status == 2 and said in done.err and "Traceback" not in done.err
    assert (recordings / "audio.wav").read_bytes() == before
