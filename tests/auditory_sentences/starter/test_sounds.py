"""Sounds of the starter corpus: captions name their classes, and classes are far apart."""

import numpy as np
import pytest

from auditory_sentences.starter import music, sounds
from auditory_sentences.starter.jobs import SMALL, Job, render


def test_every_sound_caption_names_its_class_and_no_other():
    for event, captions in sounds.CAPTIONS.items():
        for caption in captions:
            assert [name for name in sounds.CLASSES if name in caption.split()] == [event]


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
    table = np.stack([features(wave) for _, wave, _ in known])
    scale = table.std(0)
    right = 0
    for clip, wave, _ in asked:
        nearest = (((table - features(wave)) / scale) ** 2).sum(1).argmin()
        right += known[nearest][0].labels[label] == clip.labels[label]
    assert right / len(asked) > 0.85
