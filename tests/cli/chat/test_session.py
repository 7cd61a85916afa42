"""The session is one auditory sentence; a failed line changes nothing."""

import json
from dataclasses import fields

import numpy as np
import pytest
import soundfile

from cli.chat.session import Session
from cli.chat.settings import Settings
from codec.io.errors import UserError
from codec.tokens import AudioTokens
from tests.factories.uniaudio import tiny_uniaudio


@pytest.fixture(scope="module")
def model():
    return tiny_uniaudio()


@pytest.fixture
def session(model, tmp_path):
    session = Session(model, tmp_path)
    list(session.respond("/set max_seconds 1"))
    return session


def say(session, line):
    return list(session.respond(line))


def test_every_kind_of_turn_grows_the_sentence(session, tone):
    for line, roles in {
        "hello": ["text", "text"],
        "/say three": ["prompt", "transcription", "audio"],
        "/music a slow melody": ["prompt", "caption", "audio"],
        "/sound rain": ["prompt", "caption", "audio"],
        f"/listen {tone}": ["prompt", "audio", "transcription"],
        f"/describe '{tone}'": ["prompt", "audio", "caption"],
        f"/ask {tone} which instrument plays?": ["prompt", "text", "audio", "text"],
    }.items():
        before = len(session.sentence.segments)
        assert len(say(session, line)) == 1
        assert [s.role for s in session.sentence.segments[before:]] == roles
    wavs = [file for turn in session.turns for file in turn.files]
    assert len(wavs) == len(set(wavs)) == 3 and all(file.stat().st_size > 44 for file in wavs)


def test_a_voice_makes_say_follow_a_description(session):
    say(session, "/set voice a low male voice")
    say(session, "/say three")
    assert [s.role for s in session.sentence.segments] == ["prompt", "caption", "transcription", "audio"]


def test_of_several_candidates_one_is_kept_where_words_tell_what_is_asked(session, tone):
    say(session, "/set candidates 2")
    for line in ("/say three", "/say seven", "/music a slow melody", f"/denoise {tone}", "hello"):
        assert len(say(session, line)) == 1
    with pytest.raises(UserError, match="candidates"):
        say(session, "/set candidates 0")


@pytest.fixture
def asked(session, monkeypatch):
    """What the model is given, turn by turn."""
    seen, complete = [], session.model.complete

    def spy(sentences, *rest):
        seen.append(sentences[0].segments)
        return complete(sentences, *rest)

    monkeypatch.setattr(session.model, "complete", spy)
    say(session, "/set max_rows 8")
    return seen


@pytest.mark.parametrize("command", ["/example", "/shot"])
def test_examples_are_shown_before_the_question(session, tone, asked, command):
    say(session, "hello")
    say(session, f"{command} {tone} => beep")
    assert say(session, f"{command} three => seven") == ["(example 2)"]
    say(session, "/set prompt what is it?")
    assert len(say(session, f"{command} two =>")) == 1
    assert [s.role for s in asked[1]] == ["prompt", "audio", "text", "text", "text", "text"]
    assert asked[1][0].content == "what is it?" and asked[1][1].content.num_samples == 24_000
    say(session, f"{command} one =>")  # the answer before it is an example, too
    assert [s.role for s in asked[2]][-4:] == ["text"] * 4 and len(asked[2]) == 8
    assert [s.role for s in session.sentence.segments][2:] == ["audio", *["text"] * 7]
    say(session, "hello")
    with pytest.raises(UserError, match="no example to go by"):
        say(session, f"{command} one =>")


def test_a_voice_is_that_of_a_recording_until_it_is_dropped(session, tone, asked):
    say(session, "/set max_rows 40")
    assert say(session, "/voice") == ["(no voice; /voice FILE gives one)"]
    with pytest.warns(UserWarning, match="have the consent") as warned:
        assert say(session, f"/voice '{tone}'") == say(session, "/voice") == [f"(voice: {tone})"]
        say(session, f"/voice {tone}")
    assert len(warned) == 1  # of all three
    say(session, "/say three")
    assert [s.role for s in asked[0]] == ["prompt", "audio_prompt", "transcription"]
    say(session, "/set voice a low male voice")
    say(session, "/set memory 0")
    say(session, "/say three")
    assert [s.role for s in asked[1]] == ["prompt", "audio_prompt", "caption", "transcription"]
    for name in ("convert", "extract"):
        say(session, f"/{name} {tone}")
    assert [[s.role for s in segments] for segments in asked[2:]] == [["prompt", "audio_prompt", "audio"]] * 2
    assert say(session, "/voice none") == ["(no voice; /voice FILE gives one)"]
    say(session, "/say three")
    assert [s.role for s in asked[4]] == ["prompt", "caption", "transcription"]


def test_undo_new_history_tokens(session):
    say(session, "hello")
    say(session, "/say three")
    assert "descriptive" in "\n".join(say(session, "/tokens"))
    assert say(session, "/history")[0].endswith("hello")
    say(session, "/undo")
    assert len(session.turns) == 1
    say(session, "/new")
    assert session.sentence.segments == ()


def test_the_same_seed_gives_the_same_session(model, tmp_path):
    heard = []
    for name in ("a", "b"):
        session = Session(model, tmp_path / name, seed=5)
        say(session, "/set max_seconds 1")
        say(session, "/say three")
        heard.append(session.sentence.segments[-1].content)
    assert heard[0].equal(heard[1])


def test_memory_shows_the_model_earlier_turns(session, asked):
    say(session, "/set memory 2")
    lines = ["one", "two", "three", "seven"]
    for line in lines:
        say(session, line)
    given = [[s.content for s in segments if s.content in lines] for segments in asked]
    assert given == [["one"], ["one", "two"], ["one", "two", "three"], ["two", "three", "seven"]]
    assert asked[3] == (*session.turns[1].segments, *session.turns[2].segments, session.turns[3].segments[0])
    say(session, "/set memory 0")
    say(session, "red")
    assert len(asked[4]) == 1


def test_memory_leaves_room_for_the_answer(session, asked, monkeypatch):
    monkeypatch.setattr(session.model, "room_after", lambda sentence: 20 - 4 * len(sentence.segments))
    for line in ("one", "two", "three"):
        say(session, line)
    assert [len(segments) for segments in asked] == [1, 3, 3]
    assert [len(turn.segments) for turn in session.turns] == [2, 2, 2]


@pytest.mark.parametrize(
    "line",
    [
        "/bogus",
        "/say",
        "/listen",
        "/listen /no/such/file.wav",
        "/ask onlyone",
        "/set",
        "/set colour red",
        "/set temperature hot",
        "/set temperature -1",
        "/example a b",
        "/example two =>",
        "/voice /no/such/voice.wav",
        "/voice ''",
        '/voice "a',
        "/voice /",
        "/describe --music",
        "/edit",
        "/undo",
        "/tokens",
        "/say " + "seven " * 20_000,
        "/set top_k 0",
        "/set top_k 18446744073709551616",
        "/set seed -1",
        "/set guidance inf",
        "/set temperature nan",
        "/set max_rows 1_000",
        "/set max_seconds 1e999",
        "/set steps ２",
        "/set memory 1.5",
        "/set seed",
        '/listen "/no/such file.wav',
        "/listen ''",
        "/listen ~nobody-of-that-name/x.wav",
        "/listen /tmp/\0.wav",
        "/describe /",
        "/ask '/no/such' ",
        '/say "three',
        "/say !!!",
        "/say \udcff",
        "/example",
        "/example =>",
        "/example => one",
        '/example "one => two',
        "/example /no/such.wav => one",
        "/example one => !!!",
        "/save",
        "/save /proc/nothing/here",
        "/save /" + "n" * 300,
        "/\x1b[2J",
        "/",
    ],
)
def test_a_line_that_fails_changes_nothing(session, line):
    before = session.settings
    if line == "/set":
        assert len(say(session, line)) == len(fields(Settings))
        return
    with pytest.raises(UserError):
        say(session, line)
    assert session.turns == [] and session.settings == before


def test_files_and_words_are_quoted_as_in_a_shell(session, tone, tmp_path):
    spaced = tmp_path / "it's a => name.wav"
    spaced.write_bytes(tone.read_bytes())
    for number, line in enumerate([f'/example "{spaced}" => a red bird', f"/example '{tone}' => \"a red => bird\""], 1):
        assert say(session, line) == [f"(example {number})"]
        heard, said = session.turns[-1].segments
        assert heard.content.num_samples == 24_000 and said.content.startswith("a red")
    say(session, "/set max_rows 8")
    escaped = str(spaced).replace("'", "\\'").replace(" ", "\\ ")
    for line in (
        f'/ask "{spaced}" is this a bird?',
        f'/listen "{spaced}"',
        f"/listen {escaped}",
        f"/describe {spaced}",
    ):
        assert len(say(session, line)) == 1
    say(session, "/set voice 'a low voice'")
    assert session.settings.voice == "a low voice"
    say(session, '/set voice ""')
    assert session.settings.voice == ""


def test_no_seed_is_the_last(session):
    say(session, f"/set seed {2**63 - 1}")
    say(session, "one")
    assert session.settings.seed == 0


def test_silence_is_not_asked_about(session, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(24_000), 24_000)
    with pytest.warns(UserWarning, match="is silent"):
        assert say(session, f"/listen {tmp_path / 'silence.wav'}") == ["(silence)"]
    assert session.turns == []
    with pytest.raises(UserError, match="silence.wav: is silent"):
        say(session, f"/voice {tmp_path / 'silence.wav'}")
    assert session.voice is None


def test_saved_session_can_be_read_back(session, tmp_path, tone):
    with pytest.warns(UserWarning):
        say(session, f"/voice {tone}")
    say(session, "/say three")
    say(session, f"/save {tmp_path / 'kept'}")
    document = json.loads((tmp_path / "kept/session.json").read_text())
    assert document["voice"] == str(tone.resolve())
    segment = document["turns"][0]["segments"][-1]
    kept = AudioTokens.load(tmp_path / "kept" / segment["content"]["tokens"])
    assert kept.equal(session.sentence.segments[-1].content)
    with pytest.raises(UserError, match="exists already"):
        say(session, f"/save {tmp_path / 'kept'}")
