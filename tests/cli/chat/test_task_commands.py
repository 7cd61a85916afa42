"""The verbs of the command line as commands of a session: the same arguments, the same tasks, what each refuses."""

import warnings

import numpy as np
import pytest
import soundfile

from auditory_sentences.builders.tasks import TASKS
from cli.chat.session import Session
from cli.chat.task_commands import VERB_COMMANDS, commands_of_tasks, task_list
from cli.transform import VERBS
from codec.io.errors import UserError
from tests.factories.uniaudio import tiny_uniaudio


@pytest.fixture(scope="module")
def model():
    return tiny_uniaudio()


@pytest.fixture
def session(model, tmp_path, tone):
    session = Session(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of consent
        for line in ("/set max_seconds 0.5", "/set max_rows 12", "/set memory 0", f"/voice {tone}"):
            list(session.respond(line))
    return session


ROLES = {
    "convert {tone}": ["prompt", "audio_prompt", "audio", "audio"],
    "extract {tone}": ["prompt", "audio_prompt", "audio", "audio"],
    "denoise {tone}": ["prompt", "audio", "audio"],
    "denoise {tone} --room": ["prompt", "audio", "audio"],
    "separate {tone}": ["prompt", "audio", "audio", "audio"],
    "edit {tone} make it slower": ["prompt", "text", "audio", "audio"],
    "edit '{tone}' => make it slower": ["prompt", "text", "audio", "audio"],
    "continue {tone}": ["prompt", "audio", "audio"],
    "answer '{tone}'": ["prompt", "audio", "audio"],
    "sing the red bird": ["prompt", "lyric", "audio"],
}


def test_every_verb_but_clone_is_a_command():
    assert {f"/{name}" for name in VERBS} - {"/clone"} == set(VERB_COMMANDS)
    assert {line.split()[0] for line in ROLES} == {name.strip("/") for name in VERB_COMMANDS}
    assert set(VERB_COMMANDS) <= set(Session.commands())


@pytest.mark.parametrize("line", ROLES)
def test_a_verb_adds_a_turn_and_writes_its_sound(session, tone, tmp_path, line):
    answers = list(session.respond("/" + line.format(tone=tone)))
    name = line.split()[0]
    files = [tmp_path / f"{name}-{i + 1:03d}.wav" for i in range(len(answers))]
    assert len(answers) == (2 if name == "separate" else 1) and session.turns[-1].files == tuple(files)
    assert [s.role for s in session.sentence.segments] == ROLES[line]
    assert all(soundfile.info(file).frames > 0 and str(file) in said for file, said in zip(files, answers, strict=True))


def test_what_the_switch_of_a_verb_asks_for(session, tone, monkeypatch):
    asked, request = [], session.model.request

    def spy(task, *given, **more):
        asked.append(task)
        return request(task, *given, **more)

    monkeypatch.setattr(session.model, "request", spy)
    for line in (f"/denoise {tone}", f"/denoise {tone} --room", f"/edit {tone} => sing the red bird"):
        list(session.respond(line))
    list(session.respond("/set parts 3"))
    assert len(list(session.respond(f"/separate {tone}"))) == 3
    assert asked == ["denoising", "dereverberation", "speech_editing", "separation"]
    assert session.turns[2].segments[1].content == "sing the red bird"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/convert", "write /convert FILE"),
        ("/denoise", "write /denoise FILE [--room]"),
        ("/denoise --room", "write /denoise FILE [--room]"),
        ("/edit {tone}", "write /edit FILE WORDS"),
        ("/edit {tone} =>", "write /edit FILE WORDS"),
        ("/edit {tone} ''", "write /edit FILE WORDS"),
        ("/edit '{tone} slower", "not closed"),
        ("/sing", "write /sing WORDS"),
        ("/sing ☃", "the model has no words"),
        ("/answer none.wav", "none.wav"),
        ("/continue /", "/"),
        ("/convert {tone}", "there is no voice yet"),
        ("/clone three", "no command is called"),
    ],
)
def test_what_cannot_be_done_changes_nothing(session, tone, line, said):
    list(session.respond("/voice none"))
    before = session.settings
    with pytest.raises(UserError) as stop:
        list(session.respond(line.format(tone=tone)))
    assert said in str(stop.value) and session.turns == [] and session.settings == before


def test_silence_is_not_asked_about(session, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(24_000), 24_000)
    for line in ("/denoise {}", "/convert {}", "/edit {} slower"):
        with pytest.warns(UserWarning, match="is silent"):
            assert list(session.respond(line.format(tmp_path / "silence.wav"))) == ["(silence)"]
    assert session.turns == []


def test_every_command_of_a_task_is_one(session, tone, monkeypatch):
    commands = commands_of_tasks()
    assert set(commands) <= set(TASKS)
    typed = {part for line in commands.values() for part in line.replace(",", "").split() if part.startswith("/")}
    assert typed <= set(Session.commands()) and set(VERB_COMMANDS) <= typed
    monkeypatch.setattr(session.model.model.config, "tasks", ["asr", "few_shot:tts"])
    shown = list(session.respond("/tasks"))
    assert shown[:3] == ["trained for:", f"  {'asr':28}/listen", f"  {'tts':28}/say"]
    assert shown[3] == "not trained for, though it answers:"
    assert len(shown) == len(TASKS) + 2 and f"  {'denoising':28}/denoise" in shown[4:]
    with pytest.warns(UserWarning, match="the model was not trained for 'denoising'; it was for asr, tts"):
        list(session.respond(f"/denoise {tone}"))
    assert next(task_list(())) == "the model does not say what it was trained for:"
