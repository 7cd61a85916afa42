import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from codec.io.errors import UserError
from evaluation.task import TextTask, load_suite
from evaluation.text import harness
from evaluation.text.harness import TextTasks
from lm.text_tokenizer import TextTokenizer
from tests.evaluation.text.conftest import TEXTS
from tests.factories.evaluation import run, samples_in

NEEDS = "needs lm-eval: pip install 'uniaudio[text]'"


@pytest.fixture(scope="module")
def done(uniaudio_folder, text_folder, tasks_folder, tmp_path_factory):
    """A finished evaluation and its folder."""
    pytest.importorskip("lm_eval", reason=NEEDS)
    out = tmp_path_factory.mktemp("text_run")
    asked = {"suite": ["text"], "tasks": [tasks_folder], "model": uniaudio_folder, "text_model": text_folder}
    return run(**asked, out=out, limit=10), out


def entries(results):
    return {task["task"]: task for task in results["tasks"]}


def test_a_frozen_text_model_scores_as_it_does_alone(done):
    results, _ = done
    found = entries(results)
    assert set(found) == {"tiny_choices", "tiny_writing", "tiny_texts"}
    for task in found.values():
        for score in task["scores"]:
            assert score["text_model"]["value"] == pytest.approx(score["value"], rel=1e-4)
            assert score["text_model"]["n"] == score["n"] == task["n"] == task["harness"]["items"]
    assert [found[name]["n"] for name in ("tiny_choices", "tiny_writing", "tiny_texts")] == [3, 4, 4]


def test_scores_are_what_transformers_computes(done, text_folder):
    """Perplexity of each word of the texts, from scratch."""
    results, _ = done
    tokenizer, model = TextTokenizer.from_pretrained(text_folder), AutoModelForCausalLM.from_pretrained(text_folder)
    nats = words = size = 0
    for i in range(4):
        page = " ".join(TEXTS[i : i + 4 * i + 1])
        ids = [tokenizer.bos, *tokenizer.encode(page)]
        words, size = words + len(page.split(" ")), size + len(page)
        for start in range(0, len(ids) - 1, 64):  # windows of the context, the last one moved back
            end = min(start + 64, len(ids) - 1)
            begin = max(0, end - 64) if start else 0
            with torch.inference_mode():
                logits = model(torch.tensor([ids[begin:end]])).logits[0].log_softmax(-1)
            targets = torch.tensor(ids[begin + 1 : end + 1])[:, None]
            nats -= logits.gather(1, targets)[start - begin :].sum().item()
    scores = {score["name"]: score for score in entries(results)["tiny_texts"]["scores"]}
    assert scores["word_perplexity"]["value"] == pytest.approx(math.exp(nats / words), rel=1e-4)
    assert scores["bits_per_byte"]["value"] == pytest.approx(nats / size / math.log(2), rel=1e-4)
    assert all(score["stderr"] > 0 and score["direction"] == "lower" for score in scores.values())


def test_choices_have_chance_and_samples_say_what_was_chosen(done):
    results, out = done
    (accuracy,) = entries(results)["tiny_choices"]["scores"]
    assert accuracy["chance"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3) and accuracy["stderr"] is not None
    samples = [sample for sample in samples_in(out) if sample["task"] == "tiny_choices"]
    assert len(samples) == 3
    assert [len(sample["log_likelihoods"]) for sample in samples] == [2, 3, 2]
    choices = [["one", "the red bird"], ["stop here now", "the bird", "a piano"], ["melody", "answer"]]
    for sample, listed in zip(samples, choices, strict=True):
        nats = sample["log_likelihoods"]
        assert sample["answer"] == listed[nats.index(max(nats))]
    shares = [sample["answer"] == right for sample, right in zip(samples, ("one", "the bird", "melody"), strict=True)]
    assert accuracy["value"] == pytest.approx(sum(shares) / 3)


def test_the_files_show_both_models_beside_each_other(done, text_folder):
    results, out = done
    table = (out / "results.md").read_text()
    assert "| text model |" in table and "tiny\\_texts" not in table and "tiny_texts" in table
    assert "<th>Text model</th>" in (out / "report.html").read_text()
    assert results["text_model"]["source"] == str(text_folder) and results["text_model"]["parameters"] > 0
    assert all(task["harness"]["lm_eval"] for task in results["tasks"])


def test_the_same_again_computes_nothing(done, uniaudio_folder, text_folder, tasks_folder, monkeypatch):
    results, out = done
    monkeypatch.setattr("evaluation.text.text_models.UniAudioText.logits", None)
    asked = {"suite": ["text"], "tasks": [tasks_folder], "model": uniaudio_folder, "text_model": text_folder}
    again = run(**asked, out=out, limit=10)
    assert [task["scores"] for task in again["tasks"]] == [task["scores"] for task in results["tasks"]]
    with pytest.raises(UserError, match="another evaluation"):  # without the text model it is another one
        run(**(asked | {"text_model": None}), out=out, limit=10)


def test_without_lm_eval_every_task_is_named_with_the_remedy(monkeypatch, uniaudio_folder, tmp_path):
    monkeypatch.setattr(harness, "lm_eval_version", lambda: None)
    with pytest.raises(UserError, match=r"'mmlu' needs .* \(pip install 'uniaudio\[text\]'\)"):
        run(suite=["text"], model=uniaudio_folder, out=tmp_path)


def test_a_task_whose_data_cannot_be_had_is_skipped_with_one_sentence(uniaudio_folder, tasks_folder, tmp_path):
    pytest.importorskip("lm_eval", reason=NEEDS)
    folder = tmp_path / "tasks"
    folder.mkdir()
    good = (tasks_folder / "choices.yaml").read_text()
    (folder / "good.yaml").write_text(good)
    (folder / "bad.yaml").write_text(good.replace("tiny_choices", "absent").replace("choices.jsonl", "gone.jsonl"))
    with pytest.warns(UserWarning, match="1 of 2 tasks could not be evaluated"):
        results = run(suite=["text"], tasks=[folder], model=uniaudio_folder, out=tmp_path / "out")
    skipped = entries(results)["absent"]["skipped"]
    assert "the task 'absent': lm-eval cannot evaluate it" in skipped and "\n" not in skipped
    assert entries(results)["tiny_choices"]["n"] == 3


def test_options_that_mean_nothing_are_refused(uniaudio_folder, tasks_folder, tmp_path):
    with pytest.raises(UserError, match="--tasks goes with a suite that has tasks of lm-eval"):
        run(suite=["starter"], tasks=["mmlu"], model=uniaudio_folder, out=tmp_path)
    with pytest.raises(UserError, match="or one folder"):
        TextTasks.named([], [tasks_folder, "mmlu"])
    with pytest.raises(UserError, match="holds no YAML file with the key 'task'"):
        TextTasks.named([], [tmp_path])


@pytest.mark.slow  # the harness reads thousands of files of its tasks
def test_a_name_that_lm_eval_does_not_know_is_corrected():
    pytest.importorskip("lm_eval", reason=NEEDS)
    with pytest.raises(UserError, match="no task 'hellaswagg'.*hellaswag"):
        TextTasks([TextTask("hellaswagg")]).require_known()
    TextTasks(load_suite("text").text_tasks).require_known()


def test_what_a_suite_says_of_a_task_holds_for_the_name_alone():
    suite = load_suite("text").text_tasks
    (task,) = TextTasks.named(suite, ["mmlu"]).tasks
    assert task.shots == 5 and task.published["acc"].entry(True)["value"] == pytest.approx(0.441)
    assert TextTasks.named(suite, []).tasks == list(suite)


def test_a_change_of_the_data_is_another_evaluation(tasks_folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tasks_folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before = TextTasks.named([], [copy])
    first = before.fingerprint(before.tasks[0])
    lines = (copy / "choices.jsonl").read_text().splitlines()
    (copy / "choices.jsonl").write_text("\n".join([*lines, json.dumps(json.loads(lines[0]))]) + "\n")
    assert before.fingerprint(before.tasks[0]) != first
