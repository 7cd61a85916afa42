"""What supervised training of the descriptive branch asks: every published task, with answers that are true."""

import json
from collections import defaultdict

import numpy as np
import pytest
import soundfile
import torch

from auditory_sentences.builders.prompts import PromptBank
from auditory_sentences.corpora.read import read_corpus
from codec.audio.waveform import load_audio
from codec.experts.base import ExpertConfig, feature_frames
from codec.io.errors import UserError
from codec.reasoning.descriptive_branch import DescriptiveConfig
from codec.reasoning.descriptive_encoder import DescriptiveEncoder
from tests import ROOT
from training.codec.audio_qa import AudioQAConfig, AudioQADataset
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


def listening(clips, tasks, cache=True, max_seconds=30.0):
    sizes = DescriptiveConfig(speech_dim=128, music_dim=120, dim=16, heads=2, rope_dims=4, blocks=1)
    encoder = DescriptiveEncoder((ExpertConfig("speech_text"), ExpertConfig("music")), sizes)
    config = AudioQAConfig(bank=PromptBank.load(), batch=4, max_seconds=max_seconds, cache_features=cache)
    return AudioQADataset(clips, tasks, encoder, config, 0)


def test_the_full_recipe_asks_all_that_the_paper_names(clips):
    tasks = load_recipe(RECIPE).tasks
    data = listening(clips, tasks)
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
    data = listening(clips, {"speaker_verification": 1.0}, cache)
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
    assert batch.inputs(torch.device("cpu"))["transcripts"] == [""] * 4  # which of the two was said where is not told
    assert batch.examples == listening(clips, {"speaker_verification": 1.0}).batch(3).examples


def test_pairs_are_no_longer_than_the_longest_clip_may_be(clips):
    data = listening(clips, {"speaker_verification": 1.0}, max_seconds=2.0)
    heard = [data._length(example) for index in range(20) for example in data.batch(index).examples]
    assert max(heard) <= 48_000
    with pytest.raises(UserError, match="can serve any of the tasks speaker_verification"):
        listening(clips, {"speaker_verification": 1.0}, max_seconds=1.5)
