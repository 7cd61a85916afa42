"""CLAP as a judge: a tiny random one, loaded and asked as a real one."""

import json

import numpy as np
import pytest
import torch

from codec.io.errors import UserError
from evaluation.judges.clap import clap_folder, clap_of_sound, clap_of_text, clap_version
from evaluation.judges.waveform_judges import waveform_judge
from evaluation.metrics.packages import Absent
from evaluation.metrics.registry import METRICS
from tests.factories.evaluation import run

NOISE = (0.1 * np.random.default_rng(0).standard_normal(24_000)).astype(np.float32)
TONE = (0.3 * np.sin(np.arange(24_000) / 9)).astype(np.float32)


def write_clap(folder):
    """A CLAP of letters with random weights, as transformers saves it, that hears two seconds at once."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
        RobertaTokenizer,
    )

    folder.mkdir()
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(chr(c) for c in range(97, 123)), "Ġ"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    ClapFeatureExtractor(max_length_s=2, truncation="rand_trunc").save_pretrained(folder)
    audio = ClapAudioConfig(
        spec_size=128, num_mel_bins=64, hidden_size=8, patch_embeds_hidden_size=4, depths=[1, 1], window_size=2,
        num_attention_heads=[2, 2], patch_size=4, patch_stride=[4, 4], enable_fusion=False, num_classes=4,
    )  # fmt: skip
    text = ClapTextConfig(
        vocab_size=len(tokens), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=80,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ClapModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    return clap_folder(write_clap(tmp_path_factory.mktemp("clap") / "model"))


def test_sounds_and_texts_have_directions_of_length_one(clap):
    for vector in (clap_of_sound(NOISE, clap), clap_of_sound(TONE, clap), clap_of_text("a dog barks", clap)):
        assert len(vector) == 12 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert clap_of_sound(NOISE, clap) != clap_of_sound(TONE, clap)
    assert clap_of_text("a dog", clap) != clap_of_text("rain", clap)
    assert clap_of_sound(NOISE[:0], clap) == clap_of_text(" ", clap) == []
    assert np.isfinite(clap_of_sound(0 * NOISE, clap)).all()


def test_what_the_library_itself_gives(clap):
    from transformers import ClapModel, ClapProcessor

    model, processor = ClapModel.from_pretrained(clap).eval(), ClapProcessor.from_pretrained(clap)
    audio = np.interp(np.arange(48_000) / 2, np.arange(24_000), TONE).astype(np.float32)  # at 48 kHz, nearly
    features = processor.feature_extractor(audio, sampling_rate=48_000, return_tensors="pt")
    text = processor.tokenizer(["a bell"], return_tensors="pt")
    with torch.inference_mode():
        both = model(**features, **text)
    assert clap_of_text("a bell", clap) == pytest.approx(both.text_embeds[0].tolist(), abs=1e-5)
    assert np.dot(clap_of_sound(TONE, clap), both.audio_embeds[0].numpy()) > 0.999


def test_a_long_sound_is_heard_whole_and_the_same_each_time(clap):
    long = np.concatenate([NOISE, TONE, NOISE, TONE, TONE])
    assert clap_of_sound(long, clap) == clap_of_sound(long, clap)
    other = np.concatenate([long[:-24_000], NOISE])
    assert clap_of_sound(long, clap) != clap_of_sound(other, clap)  # its end is heard, too


def test_it_judges_only_where_it_is_given(clap, tmp_path):
    judge = waveform_judge("clap_caption", clap=clap)
    assert judge.version == waveform_judge("clap", clap=clap).version == clap_version(clap)
    score = METRICS["clap_score"].score([judge.judge(NOISE)], [clap_of_text("noise", clap)])
    assert -1 <= score.value <= 1
    with pytest.raises(Absent, match="--clap"):
        waveform_judge("clap")
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(UserError, match="holds no CLAP model; give another folder or hub id with --clap"):
        clap_folder(tmp_path)


TASK = """
task: made
version: 1
title: Made
about: Sounds.
request: sound_generation
data: {kind: sound, split: test}
generation: {max_rows: 8}
scores:
  - {name: CLAP score, metric: clap_score, scorer: clap_caption}
  - {name: likeness, metric: cosine, scorer: clap}
"""


def test_a_suite_judges_sounds_by_their_captions(model, clap, tmp_path):
    """Beside the recordings, silence and noise; without a CLAP both scores are left out by name."""
    (tmp_path / "made.yaml").write_text(TASK)
    (tmp_path / "mine.yaml").write_text("suite: mine\ntitle: Mine\nabout: A.\ntasks: [made.yaml]\n")
    options = {"model": model, "suite": tmp_path / "mine.yaml", "limit": 2, "untrained_limit": 0, "processes": 1}
    results = run(**options, clap=clap, out=tmp_path / "with")
    assert results["judges"]["clap"]["version"] == clap_version(clap)
    described, likeness = results["tasks"][0]["scores"]
    for key in ("original", "codec", "silence", "noise"):
        assert -1 <= described[key]["value"] <= 1
    assert likeness["original"]["value"] == pytest.approx(1) and described["chance"] is not None
    assert described["original"]["value"] < 0.999  # beside the caption, not beside itself
    with pytest.raises(UserError, match="it needs a CLAP: give a folder or hub id with --clap"):
        run(**options, out=tmp_path / "without")
