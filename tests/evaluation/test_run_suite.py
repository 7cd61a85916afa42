import json
import os
import signal
import subprocess
import sys
import time

import pytest

from auditory_sentences.token_store import TokenStore
from auditory_sentences.uniaudio import UniAudio
from codec.errors import UserError
from evaluation.items import Questions
from evaluation.run_suite import main, run
from evaluation.task import load_task

SUITE = """
suite: small
title: Small
about: A little of everything.
tasks: [asr, sound_caption, sound_2_way, sound_generation, tts, text_only, codec_sound, asr_real_digits]
"""
FAST = {"limit": 3, "untrained_limit": 2, "processes": 1, "quiet": True}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    path.write_text(SUITE)
    return path


@pytest.fixture(scope="module")
def done(model, suite, tmp_path_factory):
    """A finished run and its folder."""
    out = tmp_path_factory.mktemp("run")
    return run(model=model, suite=suite, shots=[0, 1], out=out, **FAST), out


def numbers(results):
    """What must not change from run to run: everything but time, cache and date."""
    return [{k: v for k, v in task.items() if k != "seconds"} for task in results["tasks"]]


def test_results_hold_what_a_reader_needs(done):
    results, out = done
    assert json.loads((out / "results.json").read_text()) == results
    assert results["versions"]["jiwer"] and results["model"]["fingerprint"] and "git_commit" in results
    by_name = {(task["task"], task["shots"]): task for task in results["tasks"]}
    assert set(by_name) >= {("asr", 0), ("sound_2_way", 0), ("sound_2_way", 1), ("codec_sound", 0)}
    generation = by_name["sound_generation", 0]["scores"][0]
    assert generation["n"] == 3 and generation["untrained"]["n"] == 2
    assert generation["chance"] == pytest.approx(1 / 3)
    assert generation["original"]["value"] == 1.0 and generation["codec"]["n"] == 3
    words = by_name["tts", 0]["scores"][0]
    assert words["original"]["value"] is not None and 0 <= words["value"] <= 1
    assert by_name["text_only", 0]["scores"][0]["value"] > 1
    distance = by_name["codec_sound", 0]["scores"][1]
    assert distance["value"] > 0 and distance["untrained"]["value"] > 0 and distance["original"] is None


def test_a_task_without_clips_is_named_not_dropped(done):
    results, out = done
    assert "finds no clip" in next(task for task in results["tasks"] if task["task"] == "asr_real_digits")["skipped"]
    assert "skipped: the task 'asr_real_digits'" in (out / "results.md").read_text()


def test_a_random_models_captions_are_unparsed_and_wrong(done):
    results, out = done
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    score = next(task for task in results["tasks"] if task["task"] == "sound_caption")["scores"][0]
    readings = [sample["readings"]["class"] for sample in samples if sample["task"] == "sound_caption"]
    assert score["unparsed"] == sum(reading["read"] is None for reading in readings)
    right = sum(reading["read"] == reading["reference"] for reading in readings)
    assert score["value"] == pytest.approx(right / 3)


def test_likeliest_options_are_the_models_own_and_never_unparsed(done, model):
    results, out = done
    score = next(task for task in results["tasks"] if task["task"] == "sound_2_way")["scores"][1]
    assert score["judge"] == "likeliest" and score["unparsed"] == 0 and score["chance"] == 0.5
    questions, task = Questions(TokenStore(model / "../tokens")), load_task("sound_2_way")
    item = questions.items(task, 0, 1)[0]
    (likely,) = UniAudio.from_pretrained(model).choose([item.sentence], item.role, [item.options])
    sample = json.loads((out / "samples.jsonl").read_text().splitlines()[6])
    assert (sample["task"], sample["shots"], sample["id"]) == ("sound_2_way", 0, item.id)
    assert sample["readings"]["likeliest class"]["read"] == item.options[likely.index(max(likely))]


def test_generated_audio_is_saved(done):
    _, out = done
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    made = [sample["audio"] for sample in samples if sample["task"] == "codec_sound"]
    assert len(made) == 3 and all((out / path).stat().st_size > 100 for path in made)


def test_a_second_run_computes_nothing(done, model, suite, monkeypatch):
    results, out = done

    def never(*args, **kwargs):
        raise AssertionError("asked again")

    monkeypatch.setattr(UniAudio, "complete", never)
    monkeypatch.setattr(UniAudio, "choose", never)
    monkeypatch.setattr("codec.reasoning_codec.ReasoningCodec.decode", never)
    monkeypatch.setattr("codec.reasoning_codec.ReasoningCodec.encode", never)
    monkeypatch.setattr("evaluation.judges.recognise", never)
    again = run(model=model, suite=suite, shots=[0, 1], out=out, **FAST)
    assert numbers(again) == numbers(results) and again["cache"]["misses"] == 0


def test_a_run_cut_short_goes_on_where_it_was(done, model, suite, tmp_path, monkeypatch):
    results, _ = done
    complete, calls = UniAudio.complete, []

    def dies_at_the_third(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return complete(self, *args, **kwargs)

    monkeypatch.setattr(UniAudio, "complete", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(model=model, suite=suite, shots=[0, 1], out=tmp_path, **FAST)
    again = run(model=model, suite=suite, shots=[0, 1], out=tmp_path, **FAST)
    assert numbers(again) == numbers(results) and again["cache"]["hits"] > 0


def test_the_untrained_models_outputs_serve_another_run(done, model, suite, tmp_path, monkeypatch):
    _, out = done
    asked = []
    complete = UniAudio.complete
    monkeypatch.setattr(UniAudio, "complete", lambda self, *a, **k: asked.append(1) or complete(self, *a, **k))
    run(model=model, suite=suite, shots=[0], out=tmp_path, untrained=out, **FAST)
    assert not asked
    assert not any((tmp_path / "audio").glob("*.tmp"))


def test_another_seed_is_another_run(done, model, tmp_path):
    _, out = done
    (tmp_path / "captions.yaml").write_text("suite: c\ntitle: C\nabout: C\ntasks: [sound_caption]\n")
    suite = tmp_path / "captions.yaml"
    assert run(model=model, suite=suite, out=tmp_path, untrained=out, **FAST)["cache"]["misses"] == 0
    assert run(model=model, suite=suite, out=tmp_path, untrained=out, seed=1, **FAST)["cache"]["misses"] > 0


def test_a_codec_alone(model, tmp_path):
    results = run(suite="codec", codec=model / "audio_tokenizer", corpora=[model / "../corpus"], out=tmp_path, **FAST)
    assert "model" not in results and results["codec"]["fingerprint"]
    assert {task["task"]: "skipped" in task for task in results["tasks"]} == {
        "codec_digits": False, "codec_sentences": True, "codec_sound": False, "codec_music": False,
    }  # fmt: skip
    score = next(task for task in results["tasks"] if task["task"] == "codec_sound")["scores"][0]
    assert score["original"]["value"] == 1.0 and score["codec"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--suite", "startr"], "did you mean 'starter'"),
        (["--suite", "starter"], "give a model"),
        (["--model", "MODEL", "--shots", "7"], "no task of the suite is meant for shots [7]"),
        (["--model", "MODEL", "--limit", "0"], "--limit must be at least 1"),
        (["--model", "MODEL", "--store", "nowhere"], "nowhere: holds no token store"),
        (["--model", "MODEL", "--corpus", "nowhere"], "nowhere: no such folder"),
        (["--model", "MODEL", "--suite", "real"], "nothing could be evaluated"),
        (["--model", "MODEL", "--untrained", "nowhere"], "no such folder of cached outputs"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(model, tmp_path, capsys, arguments, said):
    arguments = [str(model) if a == "MODEL" else a for a in arguments]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert last.startswith("run_suite: ") and said in last and "Traceback" not in error


def test_a_model_that_names_no_store(model, tmp_path):
    UniAudio.from_pretrained(model).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"names no token store; give one \(--store\)"):
        run(model=tmp_path / "model", out=tmp_path, **FAST)


@pytest.mark.slow
def test_kill_9_and_run_again(done, model, suite, tmp_path):
    results, _ = done
    command = [
        sys.executable,
        "-m",
        "evaluation.run_suite",
        "--model",
        str(model),
        "--suite",
        str(suite),
        "--shots",
        "0",
        "1",
    ]
    command += ["--limit", "3", "--untrained-limit", "2", "--processes", "1", "--out", str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while sum(1 for _ in tmp_path.glob("cache/*/*")) < 10 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "results.json").exists()
    again = run(model=model, suite=suite, shots=[0, 1], out=tmp_path, **FAST)
    assert numbers(again) == numbers(results) and again["cache"]["hits"] >= 10
