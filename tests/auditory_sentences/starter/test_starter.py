"""The starter corpus: reproducible, split without leaks, and its labels are true of the sound."""

import ast
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import chain

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.starter import corpus, music, sounds, texts, voices
from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import DEMO, SMALL, Job, StarterSize, plan, render
from auditory_sentences.starter.randomness import generator, split_of
from codec.io.errors import UserError
from codec.io.locks import locked

SPLITS = ("train", "dev", "test")


def tree(folder):
    """Hash of every file but the manifest's own temporary ones, by name."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("starter") / "small", seed=3, size=SMALL, processes=1)


# ---- the folder --------------------------------------------------------------------------------------------------


def test_the_folder_is_a_corpus_of_24_khz_mono_files(small):
    clips = read_corpus(small)
    assert len(clips) == json.loads((small / "manifest.json").read_text())["clips"] > 30
    assert {clip.kind for clip in clips} == {"speech", "sound", "music", "mixture"}
    for clip in clips:
        info = soundfile.info(clip.path)
        assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
        wave, _ = soundfile.read(clip.path)
        assert 0.05 < np.abs(wave).max() <= 0.951 and 0.3 < info.duration < 12
        assert clip.caption and clip.labels and clip.licence == "CC0-1.0" and clip.source
        assert bool(clip.text) == bool(clip.speaker) == (clip.kind in ("speech", "mixture"))


def test_the_number_of_processes_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_BATCH", 4)
    size = StarterSize(speech=6, sound=6, music=2, mixtures=1, recordings=1, held_out=0, voices=8)
    one, three = (synthesise(tmp_path / str(n), seed=3, size=size, processes=n) for n in (1, 3))
    assert len(tree(one)) > 20 and tree(one) == tree(three)


def test_a_finished_corpus_is_recognised(small):
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    synthesise(small, seed=3, size=SMALL)
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"size": StarterSize(speech=1)}])
def test_a_folder_with_another_corpus_is_refused(small, change):
    before = tree(small)
    with pytest.raises(UserError, match="another seed or size"):
        synthesise(small, **({"seed": 3, "size": SMALL} | change))
    assert tree(small) == before


def test_a_changed_list_of_clips_is_noticed(tmp_path):
    size = StarterSize(speech=0, sound=2, music=0, mixtures=0, recordings=0, held_out=0)
    synthesise(tmp_path / "c", size=size, processes=1)
    with (tmp_path / "c" / "clips.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match="was changed since"):
        synthesise(tmp_path / "c", size=size, processes=1)


def test_a_synthesis_killed_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_BATCH", 4)
    size = StarterSize(speech=4, sound=24, music=2, mixtures=1, recordings=1, held_out=0, voices=8)
    program = f"""
from auditory_sentences.starter import corpus
from auditory_sentences.starter.jobs import StarterSize
corpus._BATCH = 4
corpus.synthesise({str(tmp_path / "killed")!r}, 1, {size!r}, processes=1)
"""
    marks = tmp_path / "killed" / "parts"
    seen = []
    for goal in (1, 3):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(marks.glob("*.jsonl"))) < goal:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(len(list(marks.glob("*.jsonl"))))
    assert 1 <= seen[0] <= seen[1] and not (tmp_path / "killed" / "manifest.json").exists()
    with pytest.raises(UserError, match="another seed or size"):
        synthesise(tmp_path / "killed", 2, size, 1)
    whole = synthesise(tmp_path / "whole", 1, size, 1)
    assert tree(synthesise(tmp_path / "killed", 1, size, 1)) == tree(whole)


TINY = StarterSize(speech=3, sound=2, music=0, mixtures=0, recordings=0, held_out=0, voices=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("starter") / "tiny", size=TINY, processes=1)


@pytest.fixture
def own(tiny, tmp_path):
    """A tiny corpus to damage."""
    return shutil.copytree(tiny, tmp_path / "own")


def test_every_sound_file_is_in_the_list_of_hashes(own):
    lines = (own / "audio.sha256").read_text().splitlines()
    assert [f"{hashlib.sha256((own / line[66:]).read_bytes()).hexdigest()}  {line[66:]}" for line in lines] == lines
    assert sorted(line[66:] for line in lines) == sorted(f"audio/{path.name}" for path in (own / "audio").iterdir())


@pytest.mark.parametrize("damage", ["removed", "emptied", "cut", "flipped", "folder removed"])
def test_a_sound_file_that_is_lost_or_damaged_is_made_again(own, tiny, damage):
    file = sorted((own / "audio").iterdir())[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    elif damage == "folder removed":
        shutil.rmtree(own / "audio")
    else:
        file.write_bytes({"emptied": b"", "cut": content[:1000], "flipped": content}[damage])
    with pytest.warns(UserWarning, match="sound files were lost or damaged and are made again, audio/"):
        synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny)


def test_a_corpus_from_before_there_were_hashes_is_complete_if_its_files_are_there(own, tiny):
    (own / "audio.sha256").unlink()
    manifest = json.loads((own / "manifest.json").read_text())
    del manifest["audio_sha256"]
    (own / "manifest.json").write_text(json.dumps(manifest))
    before = tree(own)
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == before
    file = min((own / "audio").iterdir())
    file.unlink()
    with pytest.warns(UserWarning, match=file.name):
        synthesise(own, size=TINY, processes=1)
    assert file.read_bytes() == (tiny / "audio" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["clips.jsonl", "audio.sha256"])
def test_a_list_that_is_lost_is_named(own, name):
    (own / name).unlink()
    with pytest.raises(UserError, match=f"{name}: is lost .*another folder"):
        synthesise(own, size=TINY, processes=1)


@pytest.mark.parametrize("content", ["", "{", "[1]", "5", "{}", '{"version": 1}', '{"a": NaN}', "x" * 100], ids=str)
def test_a_manifest_of_something_else_is_left_alone(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "clips.jsonl").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="manifest.json.*another folder"):
        synthesise(tmp_path, size=TINY, processes=1)
    assert tree(tmp_path) == before


def test_a_folder_that_holds_something_is_never_written_to(tmp_path):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "mine.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds other files .'audio' ....; give a new or an empty folder"):
        synthesise(tmp_path, size=TINY, processes=1)
    with pytest.raises(UserError, match="mine.wav: is a file"):
        synthesise(tmp_path / "audio" / "mine.wav", size=TINY, processes=1)
    assert len(tree(tmp_path)) == 1


def test_what_killed_runs_left_is_removed_and_half_written_parts_are_done_again(own, tiny):
    (own / "request.json").write_text(json.dumps({"version": 1, "seed": 0, "size": vars(TINY)}))
    (own / "manifest.json").unlink()
    (own / "parts").mkdir()
    (own / "parts" / "00000.jsonl").write_text('{"id": "of an older version"}\n')
    (own / "parts" / ".tmp-1-a.jsonl").write_text("scrap")
    (own / "audio" / ".tmp-1-a.flac").write_text("scrap")
    (own / ".tmp-1-a.json").write_text("scrap")
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny)
    (own / "parts").mkdir()  # and of one that was killed when all was done
    (own / "audio" / ".tmp-1-a.flac").write_text("scrap")
    synthesise(own, size=TINY, processes=1)
    assert tree(own) == tree(tiny) and not (own / "parts").exists()


def test_one_writer(own):
    (own / "audio" / "train-sound-00000.flac").unlink()
    with locked(own, "a test"), pytest.raises(UserError, match=f"in use by a test, process {os.getpid()}"):
        synthesise(own, size=TINY, processes=1)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**63}, {"seed": 1.0}, {"processes": 0}, {"processes": 999}])
def test_seeds_and_numbers_of_processes_have_a_range(tmp_path, wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))} must be a whole number from"):
        synthesise(tmp_path / "c", **{"size": TINY, "processes": 1} | wrong)
    assert not (tmp_path / "c").exists()


def test_a_size_that_is_none():
    with pytest.raises(UserError, match="speech must be a whole number from 0 to a million, not -1"):
        StarterSize(speech=-1)


SAY = """
import hashlib
from auditory_sentences.starter.voices import ACCENTS, Voice, speak

def heard(variants):
    languages = sorted(ACCENTS)
    said = {}
    for variant in variants:
        language = languages[(len(variant) + ord(variant[-1])) % len(languages)]
        wave = speak("six", Voice(language, variant, "medium", 150.0, 22_050), 200)
        said[variant] = hashlib.sha256(wave.tobytes()).hexdigest()
    return said
"""


def test_every_voice_says_the_same_after_any_other_and_in_any_process():
    here = {}
    exec(SAY, here)
    variants = [*voices.MALE, *voices.FEMALE]
    forth, back = here["heard"](variants), here["heard"](reversed(variants))
    assert forth == back and len(set(forth.values())) == len(forth) == 42
    few = ["f3", "Reed", "m1", "Reed", "Alex"]  # Reed draws its breath from the C library's random numbers
    there = subprocess.run(
        [sys.executable, "-c", f"{SAY}\nprint(heard({few}))"], capture_output=True, text=True, check=True
    )
    assert ast.literal_eval(there.stdout) == {variant: forth[variant] for variant in few}


@pytest.mark.parametrize("kind", ["speech", "same", "sound", "music", "mixture", "reading", "suite"])
def test_a_job_is_a_function_of_its_name_and_the_seed(kind):
    job = Job(kind, "test", 5)
    first = render(job, 0, SMALL)
    render(Job("speech", "train", 1), 0, SMALL)  # whatever was spoken in between
    second, other = render(job, 0, SMALL), render(job, 1, SMALL)
    assert [clip for clip, _ in first] == [clip for clip, _ in second]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))
    assert len(first) != len(other) or not np.array_equal(first[0][1], other[0][1])


def test_the_demo_size():
    jobs = Counter((job.kind, job.split) for job in plan(DEMO))
    assert jobs["sound", "test"] == jobs["music", "dev"] == 100 and jobs["sound", "train"] > 400
    assert len({job.name for job in plan(DEMO)}) == sum(jobs.values())


# ---- no leaks ----------------------------------------------------------------------------------------------------


def test_sentences_and_longer_digit_strings_are_in_one_split_only():
    said = {}
    for split in SPLITS:
        rng = generator(0, split)
        said[split] = {texts.draw_sentence(rng, split) for _ in range(300)}
        said[split] |= {text for text in (texts.draw_digits(rng, split) for _ in range(600)) if text.count(" ") >= 2}
    for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert len(said[a]) > 200 and not said[a] & said[b]


def test_melodies_are_in_one_split_only_in_any_key():
    tunes = {split: {music.draw_melody(generator(i, split), split, 3).tune for i in range(300)} for split in SPLITS}
    assert not tunes["train"] & (tunes["dev"] | tunes["test"]) and not tunes["dev"] & tunes["test"]


def test_held_out_voices_share_neither_timbre_nor_pitch_with_train():
    of = {split: voices.voices(split, 10_000) for split in SPLITS}
    pairs = {split: {(v.language, v.variant) for v in of[split]} for split in SPLITS}
    assert not pairs["train"] & (pairs["dev"] | pairs["test"]) and not pairs["dev"] & pairs["test"]
    for gender, bands in voices.PITCH_BANDS.items():
        for pitch, (low, high) in bands.items():
            third = (high - low) / 3
            for split in SPLITS:
                for v in of[split]:
                    if (v.gender, v.pitch) == (gender, pitch):
                        assert low <= v.f0 <= high
                        assert (low + third <= v.f0 <= high - third) == (split != "train")
    assert len(of["train"]) >= 300 and min(len(of["dev"]), len(of["test"])) >= 24
    for split, count in (("train", 300), ("dev", 24), ("test", 24)):
        chosen = voices.voices(split, count)
        assert len({v.speaker for v in chosen}) == count
        assert 0.35 < np.mean([v.gender == "female" for v in chosen]) < 0.65


def test_starter_text_holds_nothing_that_is_held_out():
    lines = list(texts.starter_text(0, 3_000))
    assert lines[:50] == list(texts.starter_text(0, 50)) != list(texts.starter_text(1, 50))
    rng = generator(0, "held out")
    held_out = {texts.draw_sentence(rng, split) for split in ("dev", "test") for _ in range(2_000)}
    assert not held_out & set(lines)
    digits = [line for line in lines if set(line.split()) <= set(texts.DIGITS) and line.count(" ") >= 2]
    assert len(digits) > 100 and {split_of(line) for line in digits} == {"train"}
    assert set(texts.DIGITS) <= set(chain.from_iterable(line.split() for line in lines))
    assert any("?" in line for line in lines) and any("piano" in line for line in lines)


# ---- what belongs together ---------------------------------------------------------------------------------------


def test_a_mixture_is_the_sum_of_its_parts(small):
    clips = {clip.id: clip for clip in read_corpus(small)}
    mixtures = [clip for clip in clips.values() if clip.kind == "mixture"]
    assert mixtures
    for mixture in mixtures:
        whole, _ = soundfile.read(mixture.path)
        parts = [soundfile.read(clips[part].path)[0] for part in mixture.parts]
        assert len(parts[0]) == len(parts[1]) == len(whole)
        assert np.abs(whole - sum(parts)).max() < 3 / 32768
        snr = 10 * np.log10(np.mean(parts[0] ** 2) / np.mean(parts[1] ** 2))
        assert snr == pytest.approx(float(mixture.labels["snr_db"]), abs=0.1)
        assert mixture.text == clips[mixture.parts[0]].text
        assert clips[mixture.parts[1]].caption in mixture.caption


def test_one_text_in_several_voices():
    for index in range(3):
        clips = [clip for clip, _ in render(Job("same", "train", index), 0, DEMO)]
        assert len(clips) == 2 + index == len({clip.speaker for clip in clips}) and len({c.text for c in clips}) == 1


def test_a_reading_is_one_voice_and_a_suite_one_melody_cut():
    reading = [clip for clip, _ in render(Job("reading", "test", 1), 0, DEMO)]
    assert [clip.position for clip in reading] == list(range(4)) and len({clip.group for clip in reading}) == 1
    assert len({clip.speaker for clip in reading}) == len({clip.labels["speed"] for clip in reading}) == 1
    suite = render(Job("suite", "test", 2), 0, DEMO)
    assert [clip.position for clip, _ in suite] == list(range(5))
    labels = suite[0][0].labels
    joined = np.concatenate([wave for _, wave in suite])
    beats = len(joined) / 24_000 * int(labels["bpm"]) / 60
    assert beats == pytest.approx(round(beats * 2) / 2, abs=0.01)
    assert all(clip.labels == labels for clip, _ in suite)


# ---- labels are true ---------------------------------------------------------------------------------------------


def fundamental(wave, low=60, high=400):
    """Median of the loud frames' autocorrelation peaks, in Hz."""
    found = []
    for start in range(0, len(wave) - 2048, 600):
        frame = wave[start : start + 2048] - wave[start : start + 2048].mean()
        if frame.std() < 0.3 * wave.std():
            continue
        spectrum = np.fft.rfft(frame * np.hanning(2048), 4096)
        correlation = np.fft.irfft(np.abs(spectrum) ** 2)
        lags = np.arange(24_000 // high, 24_000 // low)
        found.append(24_000 / lags[correlation[lags].argmax()])
    return np.median(found)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_pitch_labels(gender):
    measured = defaultdict(list)
    chosen = [v for v in voices.voices("train", 300) if v.gender == gender]
    for voice in chosen[:24]:
        measured[voice.pitch].append(fundamental(voices.speak("my mother likes milk right now", voice, 165)))
    medians = [np.median(measured[pitch]) for pitch in ("low", "medium", "high")]
    for pitch, median in zip(("low", "medium", "high"), medians, strict=True):
        low, high = voices.PITCH_BANDS[gender][pitch]
        assert 0.9 * low < median < 1.1 * high


def test_speed_labels():
    voice = voices.voices("train", 300)[7]
    lengths = {
        speed: len(voices.speak("the old horse runs by the river", voice, sum(band) / 2))
        for speed, band in voices.SPEED_BANDS.items()
    }
    assert lengths["slow"] > 1.2 * lengths["medium"] > 1.2 * 1.2 * lengths["fast"]


def test_every_accent_and_timbre_speaks():
    """Every variant once, in turns over the languages: espeak-ng knows them all."""
    languages = list(voices.ACCENTS)
    for k, variant in enumerate((*voices.MALE, *voices.FEMALE)):
        voice = voices.Voice(languages[k % len(languages)], variant, "medium", 150.0, 22_050)
        assert 0.2 < len(voices.speak("seven", voice, 160)) / 24_000 < 1.5


def test_an_unknown_voice_is_named():
    with pytest.raises(UserError, match="no voice 'en-xx.m1'"):
        voices.speak("one", voices.Voice("en-xx", "m1", "low", 90.0, 22_050), 160)


def test_a_melody_is_played_in_its_key_tempo_and_register():
    for i in range(12):
        melody = music.draw_melody(generator(i, "key"), "train", 3)
        wave = music.play(melody, "organ", generator(i, "play"))
        beat = 60 / melody.bpm
        assert len(wave) == pytest.approx(sum(melody.beats) * beat * 24_000, abs=1)
        low, high = music.TEMPI[melody.tempo]
        assert low <= melody.bpm <= high
        tonic = music.TONICS.index(melody.tonic)
        scale = {(tonic + step) % 12 for step in music.MODES[melody.mode]}
        heard, start = [], 0.0
        for length in melody.beats:
            note = wave[round(start * 24_000) : round((start + length * beat) * 24_000)]
            spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 2**17))
            frequencies = np.fft.rfftfreq(2**17, 1 / 24_000)
            band = (frequencies > 70) & (frequencies < 1_200)
            heard.append(round(69 + 12 * np.log2(frequencies[band][spectrum[band].argmax()] / 440)) % 12)
            start += length * beat
        assert set(heard) <= scale | {(n + 7) % 12 for n in scale}  # the twelfth of a pipe may be the loudest
        assert heard[-1] in (tonic, (tonic + 7) % 12)


def test_every_sound_caption_names_its_class_and_no_other():
    for event, captions in sounds.CAPTIONS.items():
        for caption in captions:
            assert [name for name in sounds.CLASSES if name in caption.split()] == [event]


def test_captions_say_what_the_labels_say(small):
    for clip in read_corpus(small):
        if clip.kind == "music":
            assert clip.labels["instrument"] in clip.caption
            assert [i for i in music.INSTRUMENTS if i in clip.caption.split()] == [clip.labels["instrument"]]
            if " in " in clip.caption:
                assert clip.labels["key"] in clip.caption
        if clip.kind == "speech":
            gender = {"male": "male|man", "female": "female|woman"}[clip.labels["gender"]].split("|")
            assert set(clip.caption.split()) & set(gender)
            others = set(voices.ACCENTS.values()) - {clip.labels["accent"]}
            if "accent" in clip.caption:
                assert clip.labels["accent"] in clip.caption
            assert not any(f" {other} " in clip.caption for other in others)


def features(wave):
    """Level over time and over frequency, coarsely: what any codec should keep."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::256] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2 + 1e-7
    bands = np.stack([part.mean(1) for part in np.array_split(power, [3, 6, 10, 16, 26, 42, 68, 110, 180], 1)], 1)
    level = np.log(bands)
    change = np.abs(np.diff(level, axis=0)).mean(0)
    return np.concatenate([level.mean(0) - level.mean(), level.std(0), 3 * change, 3 * np.diff(level, axis=0).std(0)])


@pytest.mark.parametrize("kind", ["sound", "music"])
def test_classes_are_far_apart(kind):
    """Nearest neighbour on 40 coarse numbers names nearly every held-out clip's class."""
    label = {"sound": "class", "music": "instrument"}[kind]
    size = len(sounds.CLASSES if kind == "sound" else music.INSTRUMENTS)
    known = [render(Job(kind, "train", i), 0, SMALL)[0] for i in range(8 * size)]
    asked = [render(Job(kind, "test", i), 0, SMALL)[0] for i in range(3 * size)]
    table = np.stack([features(wave) for _, wave in known])
    scale = table.std(0)
    right = 0
    for clip, wave in asked:
        nearest = (((table - features(wave)) / scale) ** 2).sum(1).argmin()
        right += known[nearest][0].labels[label] == clip.labels[label]
    assert right / len(asked) > 0.85
