"""Related clips of the starter corpus: each is what its relation says, as measured on the sound."""

import numpy as np
import pytest
from scipy.signal import correlate

from auditory_sentences.builders.catalogue import Catalogue
from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.builders.tasks import TASKS, build_around, cast_of
from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.rng import KeyedRng
from auditory_sentences.starter import music, related
from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import ALL_TASKS, DEMO, SMALL_ALL_TASKS, plan, render
from auditory_sentences.starter.randomness import generator
from auditory_sentences.starter.rendering import Job
from auditory_sentences.starter.texts import belongs_to
from auditory_sentences.token_store import build_store
from lm.words import DIGITS
from tests.factories.tokenizer import FakeTokenizer


def rendered(kind, index, split="train"):
    return render(Job(kind, split, index), 0, ALL_TASKS)


def pitch(wave):
    """Median fundamental in Hz of the loud frames of a voice, by autocorrelation."""
    found = []
    for start in range(0, len(wave) - 1440, 480):
        frame = wave[start : start + 1440]
        if np.sqrt(np.mean(frame**2)) > 0.5 * np.sqrt(np.mean(wave**2)):
            likeness = correlate(frame, frame, "full")[1439:]
            lags = np.arange(60, 400)  # 400 down to 60 Hz
            best = likeness[lags] * 1440 / (1440 - lags)
            first = lags[np.flatnonzero(best > 0.9 * best.max())[0]]
            found.append(24_000 / first)
    return float(np.median(found))


def level(wave):
    return 10 * np.log10(np.mean(wave**2))


def test_every_kind_is_a_function_of_its_name_and_the_seed():
    for kind in related.RENDERERS:
        first, second = rendered(kind, 1), rendered(kind, 1)
        assert [(one.clip, one.phones) for one in first] == [(one.clip, one.phones) for one in second]
        assert all(np.array_equal(a.wave, b.wave) for a, b in zip(first, second, strict=True))
        assert all(len(one.wave) > 2400 and 0.02 < np.abs(one.wave).max() <= 1 for one in first)
        assert all(bool(one.phones) == (one.clip.kind == "speech") for one in first)


def test_the_demo_corpus_is_as_it_was():
    """No related clips: neither among its jobs nor in what its manifest records."""
    assert not {job.kind for job in plan(DEMO)} & set(related.RENDERERS)
    assert "related" not in DEMO.values and ALL_TASKS.values["related"] == 1000


@pytest.mark.parametrize("edit", sorted(related.EDITS))
def test_an_edit_does_what_it_says_and_no_more(edit):
    place = list(related.EDITS).index(edit)
    for index in (place, place + 7, place + 14):
        before, after = rendered("edit", index)
        assert related.edit_of(after.clip.instruction) == edit and after.clip.parts == (before.clip.id,)
        assert after.clip.speaker == before.clip.speaker and after.clip.labels == before.clip.labels
        faster = len(before.wave) / len(after.wave)
        higher = pitch(after.wave) / pitch(before.wave)
        louder = level(after.wave) - level(before.wave)
        if edit == "word":
            old, new = before.clip.text.split(), after.clip.text.split()
            changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
            assert len(changed) == 1 and all(f'"{word}"' in after.clip.instruction for word in changed[0])
            assert belongs_to(after.clip.text, "train")
            continue
        assert after.clip.text == before.clip.text
        assert (faster > 1.15, faster < 0.87) == (edit == "faster", edit == "slower")
        assert (higher > 1.15, higher < 0.87) == (edit == "higher", edit == "lower")
        assert (louder > 5, louder < -5) == (edit == "louder", edit == "quieter")


def test_a_text_that_asks_for_no_edit():
    with pytest.raises(ValueError, match="asks for none of the edits faster"):
        related.edit_of("make it blue")


@pytest.mark.parametrize("room", related.ROOMS)
def test_a_room_rings_as_long_as_it_says(room):
    """Schroeder's backward integral: from -5 to -25 dB, three times that to 60."""
    seconds = sum(related.ROOMS[room]) / 2
    energy = np.cumsum(related.impulse_response(generator(0, room), seconds)[1:][::-1] ** 2)[::-1]
    decibels = 10 * np.log10(energy / energy[0])
    measured = 3 * (np.argmax(decibels < -25) - np.argmax(decibels < -5)) / 24_000
    assert measured == pytest.approx(seconds, rel=0.25)


def test_a_clip_in_a_room_says_the_same_and_is_longer():
    for index in range(3):
        dry, wet = rendered("room", index)
        assert wet.clip.parts == (dry.clip.id,) and wet.clip.text == dry.clip.text and not wet.clip.instruction
        assert wet.clip.labels["room"] in related.ROOMS and wet.clip.labels["room"] in wet.clip.caption
        assert len(wet.wave) > len(dry.wave) and wet.phones == dry.phones


@pytest.mark.parametrize("name", related.NOISES)
def test_noise_is_as_loud_as_it_says_and_the_speech_beneath_is_the_clean_one(name):
    for index in (related.NOISES.index(name), related.NOISES.index(name) + 4):
        clean, noisy = rendered("noisy", index)
        assert noisy.clip.kind == "mixture" and noisy.clip.parts == (clean.clip.id,)
        assert noisy.clip.text == clean.clip.text and noisy.clip.labels["noise"] == name
        noise = noisy.wave - clean.wave
        assert level(clean.wave) - level(noise) == pytest.approx(float(noisy.clip.labels["snr_db"]), abs=0.1)
        assert abs(np.corrcoef(noise, clean.wave)[0, 1]) < 0.1


def test_noises_sound_as_they_are_called():
    """Share of the power below 500 Hz: all of a hum and of a rumble, a twenty-fourth of a hiss."""
    shares = {}
    for name in related.NOISES:
        power = np.abs(np.fft.rfft(related.noise_of(generator(0, name), name, 24_000, "train"))) ** 2
        shares[name] = power[:500].sum() / power.sum()
    assert shares["hum"] > 0.9 and shares["rumble"] > 0.9
    assert shares["hiss"] == pytest.approx(500 / 12_000, abs=0.01)
    assert 0.2 < shares["chatter"] < 0.95


@pytest.mark.parametrize("kind", ["duet", "band"])
def test_two_at_once_are_the_sum_of_both(kind):
    for index in range(4):
        first, second, both = rendered(kind, index)
        assert both.clip.kind == "mixture" and both.clip.parts == (first.clip.id, second.clip.id)
        assert np.abs(both.wave - first.wave - second.wave).max() < 1e-6
        if kind == "duet":
            assert first.clip.speaker != second.clip.speaker
        else:
            assert first.clip.labels["instrument"] != second.clip.labels["instrument"]
            assert first.clip.labels["key"] == second.clip.labels["key"] == both.clip.labels["key"]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_questions_have_one_right_answer_and_one_split(split):
    rng, asked = generator(0, split), {}
    for _ in range(300):
        question, answer = related.question(rng, split)
        assert asked.setdefault(question, answer) == answer and belongs_to(question, split)
        if " plus " in question:
            a, _, b = question.removeprefix("what is ").split()
            assert DIGITS.index(a) + DIGITS.index(b) == DIGITS.index(answer)
        elif "." in question:
            assert answer in question.split(".")[0]
    assert len(asked) > 15


def test_an_answer_follows_its_question():
    question, answer = (one.clip for one in rendered("talk", 0))
    assert question.group == answer.group and (question.position, answer.position) == (0, 1)
    assert answer.instruction == question.text and not question.instruction


def test_a_song_is_sung_in_its_key():
    """Single notes: the only word of a song is on its tonic."""
    found = 0
    for index in range(80):
        ((clip, wave, _),) = rendered("song", index)
        assert clip.kind == "music" and clip.text and clip.labels["instrument"] == "voice"
        if len(clip.text.split()) == 1:
            tonic = music.TONICS.index(clip.labels["key"].rsplit(" ", 1)[0])
            semitones = 12 * np.log2(pitch(wave) / 440) + 69 - tonic
            assert abs((semitones + 6) % 12 - 6) < 1
            found += 1
    assert found > 2


def test_a_small_corpus_serves_every_task(tmp_path):
    corpus = synthesise(tmp_path / "corpus", seed=1, size=SMALL_ALL_TASKS, processes=2)
    store = build_store(read_corpus(corpus), FakeTokenizer(), tmp_path / "store")
    for split in ("train", "dev", "test"):
        catalogue = Catalogue(store, split)
        bank = PromptBank.load().with_label_values(catalogue.label_values)
        for task in TASKS.values():
            served = [i for i in catalogue.members if cast_of(task, catalogue, i, bank)]
            assert served, (split, task.name)
            assert build_around(task, catalogue, served[0], KeyedRng(0), bank).segments
