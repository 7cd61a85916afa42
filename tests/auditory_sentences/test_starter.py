"""The starter corpus: reproducible, split without leaks, and its labels are true of the sound."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import chain

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora import read_corpus
from auditory_sentences.starter import music, sounds, texts, voices
from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import DEMO, SMALL, Job, StarterSize, plan, render
from auditory_sentences.starter.randomness import generator, split_of
from codec.errors import UserError

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


def test_the_number_of_processes_changes_nothing(tmp_path):
    size = StarterSize(speech=40, sound=40, music=10, mixtures=2, recordings=1, held_out=0, voices=8)
    one, three = (synthesise(tmp_path / str(n), seed=3, size=size, processes=n) for n in (1, 3))
    assert len(tree(one)) > 90 and tree(one) == tree(three)


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


def test_a_synthesis_killed_goes_on_and_ends_the_same(tmp_path):
    size = StarterSize(speech=60, sound=90, music=10, mixtures=2, recordings=2, held_out=0, voices=8)
    program = f"""
from auditory_sentences.starter.corpus import *
synthesise({str(tmp_path / "killed")!r}, 1, {size!r}, processes=1)
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


def test_a_size_that_is_none():
    with pytest.raises(UserError, match="speech must be a whole number from 0 to a million, not -1"):
        StarterSize(speech=-1)


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
