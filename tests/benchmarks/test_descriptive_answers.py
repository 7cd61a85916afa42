"""How answers from descriptive tokens are scored, and what happens without a recipe."""

import subprocess
import sys

import pytest

from auditory_sentences.builders.analysis import write_analysis
from auditory_sentences.corpora.clip import Clip
from tests import ROOT
from training.codec.audio_qa import Example
from training.lm.prompt_template import Dialogue

SCRIPT = ROOT / "benchmarks" / "descriptive_answers.py"


def said(task: str, labels: dict, truth: str, answer: str, text: str = ""):
    clip = Clip("a", "a.wav", "speech" if text else "sound", "test", text=text, caption="a clip", labels=labels)
    return Example(clip, task, Dialogue("?", truth)), answer


def test_transcripts_by_content_and_together(benchmark_module):
    pairs = [
        said("asr", {"content": "digits"}, "one two", "one two", "one two"),
        said("asr", {"content": "sentence"}, "the dog runs off", "the dog ran", "the dog runs off"),
    ]
    found = dict(benchmark_module("descriptive_answers").scores("asr", pairs))
    values = {name: (score.value, score.clips) for name, score in found.items()}
    assert values == {"WER, digits": (0, 1), "WER, sentence": (0.5, 1), "WER": (pytest.approx(1 / 3), 2)}


def test_answers_against_the_commonest_one(benchmark_module):
    pairs = [said("audio_qa:class", {}, truth, "bell") for truth in ("bell", "bird", "bird", "bird")]
    ((name, score),) = benchmark_module("descriptive_answers").scores("audio_qa:class", pairs)
    assert (name, score.value, score.clips, score.chance) == ("audio_qa:class", 0.25, 4, 0.75)


def test_analyses_by_the_rewards_that_apply(benchmark_module):
    labels = {"instrument": "piano", "bpm": "100"}
    right = said("analysis", labels, "", "summary: a clip details: bpm: 100, instrument: piano")
    assert write_analysis(right[0].clip) == right[1]
    double = said("analysis", labels, "", "details: bpm: 200, instrument: piano")
    heard = said("analysis", {}, "", "summary: a clip words: one three", "one two")
    found = dict(benchmark_module("descriptive_answers").scores("analysis", [right, double, heard]))
    values = {name.removeprefix("analysis: "): (score.value, score.clips) for name, score in found.items()}
    assert values == {"format": (pytest.approx(2 / 3), 3), "tags": (1, 2), "tempo": (0.75, 2), "words": (0.5, 1)}


def test_a_folder_without_a_recipe_needs_its_text_model_named():
    codec = SCRIPT.parents[1] / "assets" / "starter" / "model" / "audio_tokenizer"
    done = subprocess.run([sys.executable, SCRIPT, codec], capture_output=True, text=True, cwd=SCRIPT.parents[1])
    assert done.returncode == 2 and done.stderr.strip().endswith("name --text-model and --corpora")
