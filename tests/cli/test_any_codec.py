"""The same language model on each codec: the starter's recipes over its store, as a person runs them, in miniature.

A tokenizer that joins MADE of tests/codec/test_contract.py is trained, evaluated and spoken with here, too.
"""

import json
import os

import pytest
import soundfile

from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import StarterSize
from codec import tokenizer as registry
from codec.tokenizer import load_tokenizer
from tests.codec.test_contract import MADE
from training.recipe import load_recipe

SIZE = StarterSize(
    speech=14, sound=14, music=10, mixtures=2, recordings=1, held_out=10, voices=6, held_out_voices=4
)  # all that the four mixtures are made of, in train and in dev
FEW = ["steps=2", "batch=1", "engine.micro_batches=1", "validation_steps=1"]
SUITE = "suite: few\ntitle: Few\nabout: Some.\ntasks: [asr, tts, sound_2_way, sound_generation, codec_sound]\n"
SLOW = ("reasoning_codec", "streams")  # as codecs of another fingerprint and shape; each takes a quarter of a minute
STAGES = ("stage1", "stage2", "stage3_from_text", "stage3", "stage4")
ABOUT_STREAMS = ("tts:descriptive", "descriptive_to_structural", "music_generation:descriptive")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("any") / "corpus", 0, SIZE, processes=1)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k in SLOW)) for k in sorted(MADE)])
def test_the_starters_recipes_train_the_same_model_on_any_codec(uniaudio, corpus, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.TOKENIZERS, "streams", ("tests.factories.streams_tokenizer", "StreamsTokenizer"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = uniaudio(*arguments)
        assert done.status == 0, done.err
        return done

    codec = MADE[kind]()
    codec.save_pretrained("codec")
    run("corpus", "store", corpus, "--codec", "codec", "--out", "tokens")
    names = [spec.name for spec in codec.streams]
    for stage in STAGES:  # `init` and `out` are the recipes' own: runs/starter/stage1 to stage4
        said = run("train", f"starter/{stage}", "store=tokens", *FEW)
        written = load_recipe(f"runs/starter/{stage}/recipe.yaml")
        shipped = load_recipe(f"starter/{stage}")
        absent = [name for name in shipped.mixture if "descriptive" in name and "descriptive" not in names]
        assert set(written.mixture) == set(shipped.mixture) - set(absent)
        assert len(written.loss.streams) == max(spec.codebooks for spec in codec.streams)
        assert all(name in said.err + said.out for name in absent), "a person is told what was left out"
        assert (written.sampling == shipped.sampling) == ("structural" in names or not shipped.sampling)
        if stage == "stage1":
            assert written.audio_tokenizer == os.path.abspath("codec") and not written.audio_llm
            assert load_recipe("runs/starter/stage1/recipe.yaml").audio_tokenizer in said.err + said.out

    model = "runs/starter/stage4/model"
    assert load_tokenizer(f"{model}/audio_tokenizer").fingerprint == codec.fingerprint
    run("speak", "three seven one", "--model", model, "--out", "speech.wav", "--max-seconds", 0.5)
    info = soundfile.info("speech.wav")
    assert info.samplerate == codec.sample_rate and 0 < info.frames <= 0.6 * codec.sample_rate
    assert len(run("transcribe", "speech.wav", "--model", model, "--max-rows", 8).out.splitlines()) == 1

    with open("few.yaml", "w") as file:
        file.write(SUITE)
    limits = "--limit", 2, "--untrained-limit", 0, "--processes", 1, "--device", "cpu"
    run("evaluate", "--model", model, "--suite", "few.yaml", "--shots", 0, 1, *limits, "--out", "evaluation")
    with open("evaluation/results.json") as file:
        results = json.load(file)
    assert len(results["tasks"]) == 6 and not [task for task in results["tasks"] if "skipped" in task]
    assert all(task["n"] == 2 for task in results["tasks"])
    changed = {task["task"] for task in results["tasks"] if "changes" in task}
    assert changed >= ({"tts", "sound_2_way"} if "descriptive" not in names else set())


def test_what_is_left_out_is_in_the_shipped_recipes():
    """Else the test above would say nothing of them."""
    assert set(ABOUT_STREAMS) <= set(load_recipe("starter/stage3").mixture)
