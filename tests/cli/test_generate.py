"""`uniaudio speak` and `compose`: into files, and into a pipe while the sound is being made."""

import io
import sys

import numpy as np
import soundfile

from codec.audio.waveform import load_audio


def test_speak_writes_sound_and_the_same_seed_the_same_sound(uniaudio, model_folder, tmp_path):
    for name in ("a.wav", "b.wav"):
        done = uniaudio("speak", "three seven", "--max-seconds", 1, "--model", model_folder, "-o", tmp_path / name)
        assert done.status == 0 and name in done.out
    a, rate = soundfile.read(tmp_path / "a.wav")
    b, _ = soundfile.read(tmp_path / "b.wav")
    assert rate == 24_000 and len(a) > 0 and np.array_equal(a, b)


def test_sound_goes_to_a_pipe_while_it_is_being_made(uniaudio, model_folder, tmp_path, monkeypatch):
    class Pipe(io.TextIOWrapper):
        def isatty(self):
            return False

    file = tmp_path / "sent.wav"
    with file.open("wb") as raw, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Pipe(raw))
        done = uniaudio("speak", "three seven", "--max-seconds", 1, "--model", model_folder, "-o", "-")
    assert done.status == 0 and "the first came after" in done.err and done.out == ""
    uniaudio("speak", "three seven", "--max-seconds", 1, "--model", model_folder, "-o", tmp_path / "whole.wav")
    assert len(load_audio(file)) == soundfile.info(tmp_path / "whole.wav").frames


def test_sound_is_not_sent_to_a_terminal(uniaudio, model_folder, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    done = uniaudio("compose", "a slow melody", "--max-seconds", 1, "--model", model_folder, "-o", "-")
    assert done.status == 2 and "send it to a player" in done.err and sys.stdout.getvalue() == ""


def test_compose_music_and_sound(uniaudio, model_folder, tmp_path):
    for options in ([], ["--sound"]):
        out = tmp_path / f"x{len(options)}.flac"
        done = uniaudio("compose", "a slow melody", *options, "--max-seconds", 1, "--model", model_folder, "-o", out)
        assert done.status == 0 and out.exists()


def test_a_text_longer_than_the_context_is_refused(uniaudio, model_folder, tmp_path):
    done = uniaudio("speak", "seven " * 20_000, "--max-seconds", 1, "--model", model_folder, "-o", tmp_path / "x.wav")
    assert done.status == 2 and "rows" in done.err and not (tmp_path / "x.wav").exists()


def test_the_best_of_several_sounds_goes_to_a_file_and_not_to_a_pipe(uniaudio, model_folder, tmp_path, monkeypatch):
    short = ("--max-seconds", 0.5, "--model", model_folder)
    alone = []
    for seed in (0, 1):
        assert uniaudio("speak", "three", "--seed", seed, *short, "-o", tmp_path / f"{seed}.wav").status == 0
        alone.append(load_audio(tmp_path / f"{seed}.wav"))
    assert uniaudio("speak", "three", "--candidates", 2, *short, "-o", tmp_path / "best.wav").status == 0
    best = load_audio(tmp_path / "best.wav")
    assert any(len(best) == len(one) for one in alone)
    with (tmp_path / "pipe").open("wb") as raw, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw))
        done = uniaudio("speak", "three", "--candidates", 2, *short, "-o", "-")
    assert done.status == 2 and "leave candidates at 1" in done.err
    for given in (0, 101, "two"):
        done = uniaudio("compose", "rain", "--candidates", given, *short, "-o", tmp_path / "x.wav")
        assert done.status == 2 and "--candidates" in done.err


def test_verbs_that_are_told_something_in_words_have_candidates(uniaudio):
    for verb, there in (("speak", 1), ("compose", 1), ("clone", 1), ("sing", 1), ("denoise", 0), ("edit", 0)):
        done = uniaudio(verb, "--help")
        assert done.status == 0 and ("--candidates" in done.out) == bool(there), verb
