"""Questions about recordings: every published task, true answers, batches that depend on their number alone."""

import json
from collections import defaultdict

import numpy as np
import pytest
import soundfile
import torch

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpus
from codec.audio.waveform import load_audio
from codec.experts.base import feature_frames
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.reasoning.config import DescriptiveConfig, DescriptiveEncoderConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from tests import ROOT
from tests.factories.tones import write_tones
from training.codec.audio_qa import AudioQAConfig, AudioQADataset, Augmentation, warped
from training.codec.speaker_pairs import GAP
from training.recipe import load_recipe

RECIPE = ROOT / "recipes" / "full" / "descriptive.yaml"
CLIPS = (
    *(
        {"kind": "speech", "speaker": f"speaker {n % 3}", "text": "one two", "caption": "a low voice",
         "labels": {"gender": ("female", "male", "male")[n % 3], "emotion": ("sad", "glad")[n % 2]}}
        for n in range(8)
    ),
    {"kind": "speech", "speaker": "speaker 9", "text": "three"},  # no second clip of hers
    {"kind": "sound", "caption": "a dog barks", "labels": {"class": "dog"}},
    {"kind": "sound", "caption": "a dog barks", "labels": {"class": "hound"}},
    {"kind": "music", "caption": "a slow song", "text": "la la", "labels": {"key": "C major", "bpm": "90"}},
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines = []
    for number, clip in enumerate(CLIPS):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(9_000 + 1_111 * number), 24_000)
        lines.append(json.dumps({"id": f"clip-{number}", "path": f"{number}.wav", "split": "train"} | clip))
    (folder / "clips.jsonl").write_text("\n".join(lines))
    return read_corpus(folder)


def descriptive_encoder():
    sizes = DescriptiveConfig(speech_dim=128, music_dim=120, dim=16, heads=2, rope_dims=4, blocks=1)
    return DescriptiveEncoder(DescriptiveEncoderConfig((ExpertConfig("speech_text"), ExpertConfig("music")), sizes))


def dataset(clips, tasks, cache=True, max_seconds=30.0):
    config = AudioQAConfig(bank=PromptBank.load(), batch=4, max_seconds=max_seconds, cache_features=cache)
    return AudioQADataset(clips, tasks, descriptive_encoder(), config, 0)


def test_the_full_recipe_asks_all_that_the_paper_names(clips):
    tasks = load_recipe(RECIPE).tasks
    data = dataset(clips, tasks)
    assert data.clips_of.keys() == tasks.keys()  # each finds a clip where the corpus has what it takes
    asked = defaultdict(list)
    for index in range(150):
        for example in data.batch(index).examples:
            asked[example.task, example.clip.kind].append(example)
    answers = {key: {example.dialogue.answer for example in examples} for key, examples in asked.items()}
    assert answers["asr", "speech"] == {"one two", "three"}
    assert answers["lyric_recognition", "music"] == {"la la"}
    assert answers["speech_caption", "speech"] == {"a low voice"}
    assert answers["sound_caption", "sound"] == {"a dog barks"}
    assert answers["music_caption", "music"] == {"a slow song"}
    assert answers["audio_qa", "speech"] == {"male", "female", "sad", "glad"}  # gender and emotion
    assert answers["audio_qa", "sound"] == {"dog", "hound"}
    assert answers["speaker_verification", "speech"] == {"yes", "no"}
    assert "summary: a low voice details: emotion: sad, gender: male words: one two" in answers["analysis", "speech"]
    assert "summary: a dog barks details: class: dog" in answers["analysis", "sound"]
    assert answers["analysis", "music"] == {"summary: a slow song details: bpm: 90, key: C major words: la la"}
    bank = json.loads((RECIPE.parents[2] / "auditory_sentences" / "builders" / "prompts.json").read_text())
    assert any(e.dialogue.question in bank["questions"]["emotion"] for e in asked["audio_qa", "speech"])
    for (task, _), examples in asked.items():
        if task not in ("audio_qa", "audio_yes_no"):
            assert {example.dialogue.question for example in examples} <= set(bank["prompts"][task])


@pytest.mark.parametrize("cache", [True, False])
def test_two_voices_are_heard_one_after_the_other(clips, cache):
    data = dataset(clips, {"speaker_verification": 1.0}, cache)
    examples = [example for index in range(40) for example in data.batch(index).examples]
    for example in examples:
        assert example.clip.id != example.other.id
        assert example.dialogue.answer == ("yes" if example.clip.speaker == example.other.speaker else "no")
    assert 0.35 < sum(example.dialogue.answer == "yes" for example in examples) / len(examples) < 0.65
    assert "speaker 9" not in {example.clip.speaker for example in examples}

    batch = data.batch(3)
    for row, example in enumerate(batch.examples):
        first, second = (load_audio(clip.path) for clip in (example.clip, example.other))
        waveform = torch.cat([first, torch.zeros(GAP), second])
        speech, music, frames = data.encoder.extract_features(waveform[None], torch.tensor([len(waveform)]))
        assert batch.frames[row] == frames[0] == feature_frames(len(waveform), 25)
        torch.testing.assert_close(batch.speech[row, :, : speech.shape[2]], speech[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(batch.music[row, :, : music.shape[2]], music[0], atol=2e-3, rtol=2e-3)
    inputs = batch.inputs(torch.device("cpu"))
    assert inputs["transcripts"] == [""] * 4 and inputs["labels"] == [{}] * 4  # which of the two said what is not told
    assert batch.examples == dataset(clips, {"speaker_verification": 1.0}).batch(3).examples


def test_pairs_are_no_longer_than_the_longest_clip_may_be(clips):
    data = dataset(clips, {"speaker_verification": 1.0}, max_seconds=2.0)
    heard = [data._length(example) for index in range(20) for example in data.batch(index).examples]
    assert max(heard) <= 48_000
    with pytest.raises(UserError, match="can serve any of the tasks speaker_verification"):
        dataset(clips, {"speaker_verification": 1.0}, max_seconds=1.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"))


def questions_about(corpus, **changes) -> AudioQADataset:
    arguments = {
        "clips": [clip for clip in read_corpus(corpus) if clip.split == "train"],
        "tasks": {"audio_qa:class": 3.0, "asr": 1.0},
        "encoder": descriptive_encoder(),
    }
    augmentation = Augmentation(time_masks=1, band_masks=1, warp=0.05)
    config = {"batch": 4, "max_seconds": 30, "augmentation": augmentation, "cache_features": True}
    config = AudioQAConfig(bank=PromptBank.load(), **{name: changes.pop(name, value) for name, value in config.items()})
    return AudioQADataset(*(arguments | changes).values(), config, 7)


def test_batches_are_a_function_of_their_number(corpus):
    first, second = questions_about(corpus), questions_about(corpus)
    second.batch(0)  # in another order
    for index in (5, 2):
        ours, theirs = first.batch(index), second.batch(index)
        assert ours.examples == theirs.examples
        assert torch.equal(ours.speech, theirs.speech) and torch.equal(ours.music, theirs.music)
    assert first.batch(5).examples != first.batch(2).examples


def test_every_answer_is_true(corpus):
    data = questions_about(corpus)
    seen = [example for index in range(20) for example in data.batch(index).examples]
    assert {example.task for example in seen} == {"audio_qa:class", "asr"}
    assert 0.1 < sum(example.task == "asr" for example in seen) / len(seen) < 0.45
    for example in seen:
        expected = example.clip.text if example.task == "asr" else example.clip.labels["class"]
        assert example.dialogue.answer == expected


def test_held_out_questions_are_unchanged_features(corpus):
    data = questions_about(corpus)
    (batch,) = data.questions("audio_qa:class", 5)
    assert len(batch.examples) == 5
    for row, example in enumerate(batch.examples):
        speech, music = data._features([example])[0]
        assert torch.equal(batch.speech[row, :, : speech.shape[1]], speech)
        assert batch.frames[row] == music.shape[1]


def test_augmentation_silences_and_stretches(corpus):
    plain = questions_about(corpus, augmentation=Augmentation())
    masked = questions_about(corpus, augmentation=Augmentation(time_masks=2, time_width=4, band_masks=2))
    before, after = plain.batch(3), masked.batch(3)
    changed = before.speech != after.speech
    assert changed.any() and (after.speech[changed] == 0).all()
    assert (before.music != after.music).any()


def test_warping_moves_bands_by_the_factor():
    tone = torch.zeros(64, 2, 5)
    tone[20] = 1.0
    moved = warped(tone.flatten(0, 1), 1.1, stack=2).unflatten(0, (64, 2))
    assert moved[:, 0, 0].argmax() == moved[:, 1, 4].argmax() == 22
    assert torch.equal(warped(tone.flatten(0, 1), 1.0, stack=2), tone.flatten(0, 1))


def test_clips_that_serve_no_task_are_an_error(corpus):
    with pytest.raises(UserError, match="none of 16 clips .* can serve any of the tasks music_caption"):
        questions_about(corpus, tasks={"music_caption": 1.0})
    with pytest.raises(UserError, match="clips of at most 0.1 s"):
        questions_about(corpus, max_seconds=0.1)
