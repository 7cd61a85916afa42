"""Jobs of the starter corpus: functions of their names and the seed, whose clips belong together."""

from collections import Counter

import numpy as np
import pytest
import soundfile

from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.starter import music, voices
from auditory_sentences.starter.jobs import DEMO, SMALL, plan, render
from auditory_sentences.starter.rendering import Job


@pytest.mark.parametrize("kind", ["speech", "same", "sound", "music", "mixture", "reading", "suite"])
def test_a_job_is_a_function_of_its_name_and_the_seed(kind):
    job = Job(kind, "test", 5)
    first = render(job, 0, SMALL)
    render(Job("speech", "train", 1), 0, SMALL)  # whatever was spoken in between
    second, other = render(job, 0, SMALL), render(job, 1, SMALL)
    assert [(one.clip, one.phones) for one in first] == [(one.clip, one.phones) for one in second]
    assert all(np.array_equal(a.wave, b.wave) for a, b in zip(first, second, strict=True))
    assert len(first) != len(other) or not np.array_equal(first[0][1], other[0][1])


def test_the_demo_size():
    jobs = Counter((job.kind, job.split) for job in plan(DEMO))
    assert jobs["sound", "test"] == jobs["music", "dev"] == 100 and jobs["sound", "train"] > 400
    assert len({job.name for job in plan(DEMO)}) == sum(jobs.values())


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
        clips = [clip for clip, _, _ in render(Job("same", "train", index), 0, DEMO)]
        assert len(clips) == 2 + index == len({clip.speaker for clip in clips}) and len({c.text for c in clips}) == 1


def test_a_reading_is_one_voice_and_a_suite_one_melody_cut():
    reading = [clip for clip, _, _ in render(Job("reading", "test", 1), 0, DEMO)]
    assert [clip.position for clip in reading] == list(range(4)) and len({clip.group for clip in reading}) == 1
    assert len({clip.speaker for clip in reading}) == len({clip.labels["speed"] for clip in reading}) == 1
    suite = render(Job("suite", "test", 2), 0, DEMO)
    assert [clip.position for clip, _, _ in suite] == list(range(5))
    labels = suite[0][0].labels
    joined = np.concatenate([wave for _, wave, _ in suite])
    beats = len(joined) / 24_000 * int(labels["bpm"]) / 60
    assert beats == pytest.approx(round(beats * 2) / 2, abs=0.01)
    assert all(clip.labels == labels for clip, _, _ in suite)


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
