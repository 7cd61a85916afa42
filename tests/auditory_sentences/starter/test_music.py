"""Music of the starter corpus: melodies are of one split only, and played as their labels say."""

import numpy as np
import pytest

from auditory_sentences.corpora.clip import SPLITS
from auditory_sentences.starter import music
from auditory_sentences.starter.randomness import generator


def test_melodies_are_in_one_split_only_in_any_key():
    tunes = {split: {music.draw_melody(generator(i, split), split, 3).tune for i in range(300)} for split in SPLITS}
    assert not tunes["train"] & (tunes["dev"] | tunes["test"]) and not tunes["dev"] & tunes["test"]


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
