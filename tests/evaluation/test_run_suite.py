import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from auditory_sentences.corpora.read import read_corpus
from auditory_sentences.starter.corpus import synthesise
from auditory_sentences.starter.jobs import SMALL_ALL_TASKS
from auditory_sentences.token_store import TokenStore, build_store
from codec.io.errors import UserError
from codec.tokenizer import load_tokenizer
from evaluation.compare.pairing import compare_runs
from evaluation.compare.run import read_run
from evaluation.items import ItemBuilder
from evaluation.run_suite import evaluate
from evaluation.task import load_task
from tests.factories.evaluation import run
from tests.factories.uniaudio import tiny_uniaudio
from uniaudio.model import UniAudio

SUITE = """
suite: small
title: Small
about: A little of everything.
tasks: [asr, sound_caption, sound_2_way, sound_generation, tts, text_only, codec_sound, asr_real_digits]
"""
FAST = {"limit": 3, "untrained_limit": 2, "processes": 1}


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
    distance = next(s for s in by_name["codec_sound", 0]["scores"] if s["metric"] == "mel_distance")
    assert distance["value"] > 0 and distance["untrained"]["value"] > 0 and distance["original"]["value"] == 0


def test_a_task_without_clips_is_named_not_dropped(done):
    results, out = done
    assert "finds no clip" in next(task for task in results["tasks"] if task["task"] == "asr_real_digits")["skipped"]
    assert "skipped: the task 'asr_real_digits'" in (out / "results.md").read_text()


def test_a_random_models_captions_are_unparsed_and_wrong(done):
    results, out = done
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    score = next(task for task in results["tasks"] if task["task"] == "sound_caption")["scores"][0]
    predictions = [sample["predictions"]["class"] for sample in samples if sample["task"] == "sound_caption"]
    assert score["unparsed"] == sum(reading["read"] is None for reading in predictions)
    right = sum(reading["read"] == reading["reference"] for reading in predictions)
    assert score["value"] == pytest.approx(right / 3)


def test_likeliest_options_are_the_models_own_and_never_unparsed(done, model):
    results, out = done
    score = next(task for task in results["tasks"] if task["task"] == "sound_2_way")["scores"][1]
    assert score["scorer"] == "max_likelihood" and score["unparsed"] == 0 and score["chance"] == 0.5
    questions, task = ItemBuilder(TokenStore(model / "../tokens")), load_task("sound_2_way")
    item = questions.items(task, 0, 1)[0]
    options = list(item.targets["likeliest class"].phrases)
    (likely,) = UniAudio.from_pretrained(model).choose([item.sentence], item.role, [options])
    sample = json.loads((out / "samples.jsonl").read_text().splitlines()[6])
    assert (sample["task"], sample["shots"], sample["id"]) == ("sound_2_way", 0, item.id)
    assert sample["predictions"]["likeliest class"]["read"] == options[likely.index(max(likely))]


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
    monkeypatch.setattr("codec.reasoning.codec.ReasoningCodec.decode", never)
    monkeypatch.setattr("codec.reasoning.codec.ReasoningCodec.encode", never)
    monkeypatch.setattr("evaluation.judges.pool.recognise", never)
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
    with pytest.warns(UserWarning, match="1 of 8 tasks could not be evaluated: the task 'asr_real_digits'"):
        run(model=model, suite=suite, shots=[0], out=tmp_path, untrained=out, **FAST)
    assert not asked
    assert not any((tmp_path / "audio").glob("*.tmp"))


@pytest.fixture
def captions(tmp_path):
    """A suite of one task, which the finished run has answered."""
    path = tmp_path / "captions.yaml"
    path.write_text("suite: c\ntitle: C\nabout: C\ntasks: [sound_caption]\n")
    return path


def test_another_evaluation_never_replaces_the_results(done, model, captions, tmp_path):
    _, out = done
    same = {"model": model, "suite": captions, "out": tmp_path / "out", "untrained": out} | FAST
    first = run(**same)
    assert first["cache"]["misses"] == 0
    written = (tmp_path / "out" / "results.json").read_bytes()
    for other in ({"seed": 1}, {"limit": 2}, {"suite": "codec"}, {"codec": other_codec(model, tmp_path)}):
        with pytest.raises(UserError, match="out: holds the results of another evaluation .* --out, or --force"):
            run(**same | other)
        assert (tmp_path / "out" / "results.json").read_bytes() == written
    assert numbers(run(**same)) == numbers(first)
    again = run(**same | {"seed": 1, "force": True})
    assert again["settings"]["seed"] == 1 and again["cache"]["misses"] > 0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == again


def other_codec(model, folder):
    """The model's codec with other weights."""
    codec = load_tokenizer(model / "audio_tokenizer")
    with torch.no_grad():
        next(codec.parameters()).add_(0.1)
    codec.save_pretrained(folder / "codec")
    return folder / "codec"


def test_the_best_of_several_answers_the_same_tasks_in_another_way(done, model, suite, tmp_path):
    plain, out = done
    several = run(model=model, suite=suite, shots=[0, 1], out=tmp_path / "x", candidates=2, untrained=out, **FAST)
    assert several["settings"]["candidates"] == 2 and "candidates" not in plain["settings"]
    for before, after in zip(plain["tasks"], several["tasks"], strict=True):
        assert before["fingerprint"] == after["fingerprint"]
        told = before["task"] in ("tts", "sound_generation")
        assert after["generation"]["candidates"] == (2 if told else 1)
        assert told or before["scores"] == after["scores"]
    compared = compare_runs([read_run(out)], [read_run(tmp_path / "x")])
    assert {"tts", "sound_generation"} <= {task.key[0] for task in compared.tasks}
    with pytest.raises(UserError, match="another evaluation"):
        run(model=model, suite=suite, shots=[0, 1], out=out, candidates=2, **FAST)


def test_a_codec_alone(model, tmp_path):
    results = run(
        suite="codec_reconstruction",
        codec=model / "audio_tokenizer",
        corpus=[model / "../corpus"],
        out=tmp_path,
        **FAST,
    )
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
        (["--codec", "c", "--suite", "starter"], "give a model"),
        (["--suite", "starter"], "names no token store; give one (--store)"),
        (["--model", "MODEL", "--shots", "7"], "no task of the suite is meant for shots [7]"),
        (["--model", "MODEL", "--store", "nowhere"], "nowhere: holds no token store"),
        (["--model", "MODEL", "--corpus", "nowhere"], "nowhere: no such folder"),
        (["--model", "MODEL", "--suite", "real"], "nothing could be evaluated"),
        (["--model", "MODEL", "--untrained", "nowhere"], "no such folder of cached outputs"),
        (["--model", "MODEL", "--limit", "0"], "--limit: must be at least 1"),
        (["--model", "MODEL", "--limit", "-1"], "--limit: must be at least 1"),
        (["--model", "MODEL", "--limit", str(2**70)], "--limit: must fit 64 bits"),
        (["--model", "MODEL", "--limit", "nan"], "--limit: must be an integer"),
        (["--model", "MODEL", "--limit", "9" * 5000], "--limit: must fit 64 bits"),
        (["--model", "MODEL", "--untrained-limit", "-1"], "--untrained-limit: must be at least 0"),
        (["--model", "MODEL", "--shots", "0", "-1"], "--shots: must be at least 0"),
        (["--model", "MODEL", "--seed", str(2**64)], "--seed: must fit 64 bits"),
        (["--model", "MODEL", "--processes", str(10**9)], "--processes: must be at least 0 and at most 256"),
        (["--model", "MODEL", "--device", "nonsense"], "--device must be cpu, cuda"),
        (["--model", "MODEL", "--device", "meta"], "--device must be cpu, cuda"),
        (["--model", "MODEL", "--device", "cuda:99"], "--device cuda:99: "),
        (["--model", ""], "--model must name something"),
        (["--model", "MODEL", "--store", " "], "--store must name something"),
        (["--model", "MODEL", "--limits", "4"], "unrecognized arguments: --limits"),
        (["--model", "MODEL", "--limit"], "--limit: expected one argument"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(model, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNIAUDIO_MODEL", raising=False)
    arguments = [str(model) if a == "MODEL" else a for a in arguments]
    with pytest.raises(UserError) as error:
        evaluate([*arguments, "--out", "a/b"], "run_suite.py")
    assert said in str(error.value) and len(str(error.value)) < 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"limit": True}, "--limit must be an integer, not True"),
        ({"seed": 2**63}, "--seed must"),
        ({"processes": 10**9}, "--processes must be at least 0 and at most 256"),
        ({"shots": [0, -1]}, "--shots must be at least 0, not -1"),
        ({"out": ""}, "--out must name something"),
        ({"corpus": ["x\0"]}, "--corpus must name something"),
    ],
)
def test_mistakes_of_a_program_are_the_same(model, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said.replace("--", "")):
        run(**{"model": model, "out": tmp_path / "out"} | arguments)
    assert not list(tmp_path.iterdir())


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


def test_all_tasks_on_a_corpus_that_has_material_for_them(tmp_path):
    """Every new task is asked, answered and scored, beside the recordings that the requests give."""
    corpus = synthesise(tmp_path / "corpus", seed=1, size=SMALL_ALL_TASKS, processes=1)
    uniaudio = tiny_uniaudio(context=2048)
    uniaudio.save_pretrained(tmp_path / "model")
    build_store(read_corpus(corpus), uniaudio.codec, tmp_path / "tokens")
    out = tmp_path / "out"
    results = run(
        model=tmp_path / "model", store=[tmp_path / "tokens"], suite="all_tasks", out=out, limit=1, untrained_limit=0,
        processes=1,
    )  # fmt: skip
    tasks = {task["task"]: task for task in results["tasks"]}
    skipped = {name: task["skipped"] for name, task in tasks.items() if "skipped" in task}
    assert len(tasks) == 13 and all("needs librosa" in why for why in skipped.values())  # an extra
    assert skipped.keys() <= {"music_key_tempo"}
    assert [tasks[name]["n"] for name in ("separation_speakers", "separation_music", "denoising")] == [2, 2, 1]
    given = {name for name, task in tasks.items() if any("given" in score for score in task["scores"])}
    assert given == {
        "voice_conversion", "speech_editing", "denoising", "dereverberation", "separation_speakers",
        "separation_music", "speaker_extraction", "spoken_answer",
    }  # fmt: skip
    (direction,) = (s for s in tasks["speech_editing"]["scores"] if s["name"] == "asked direction")
    assert direction["chance"] == 0.5 and direction["given"]["value"] in (0.0, None)
    assert "| unchanged |" in (out / "results.md").read_text()
