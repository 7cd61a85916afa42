import pytest
import torch

from codec.io.errors import UserError
from evaluation.cache import Cache
from evaluation.datasets.encoded_clips import EncodedClips
from evaluation.runner import CodecRunner
from evaluation.task import load_task
from tests.evaluation.datasets.test_task_dataset import ESC, saved
from tests.factories.evaluation import run
from tests.factories.tones import write_tone
from uniaudio.model import UniAudio

FAST = {"limit": 2, "untrained_limit": 0, "processes": 1}


@pytest.fixture
def esc50(tmp_path):
    return saved(tmp_path / "esc50", ESC)


def test_tokens_are_those_of_the_codec(esc50, tmp_path, model):
    uniaudio = UniAudio.from_pretrained(model)
    clips = EncodedClips([load_task("esc50_2_way").dataset], [esc50], tmp_path / "unpacked")
    with pytest.raises(ValueError, match="no codec was given"):
        clips[0]
    clips.encode_with(CodecRunner(uniaudio.codec, Cache(tmp_path / "cache")))
    made, right = clips[1], uniaudio.tokens_of(clips.clips[1].path)
    assert made.id == clips.clips[1].id and len(clips) == 6
    assert all(torch.equal(made.tokens[name], ids) for name, ids in right.streams.items())
    assert clips.num_samples[1] == 9_600 and clips.streams == uniaudio.codec.streams
    assert len(clips.data_hash) == 16 and not clips.missing


def test_a_suite_runs_on_folders_and_names_what_is_missing(esc50, tmp_path, model):
    with pytest.warns(UserWarning, match="1 of 2 tasks could not be evaluated: .*no such folder"):
        results = run(
            model=model, suite=["paper_few_shot"], shots=[1], corpus=[esc50, f"esd={tmp_path / 'absent'}"],
            out=tmp_path / "out", **FAST,
        )  # fmt: skip
    found, missing = results["tasks"]
    assert found["task"] == "esc50_2_way" and found["n"] == 2 and found["scores"][0]["chance"] == 0.5
    assert "the data set 'esd'" in missing["skipped"]
    assert results["data"]["clips"] == 6 and results["data"]["hash"]


def test_published_numbers_stand_beside(tmp_path, model):
    folder = tmp_path / "librispeech"
    for i in range(2):
        write_tone(folder / f"{i}.wav", 200 + i, 9_600)
    (folder / "list.csv").write_text("file,text,speaker\n0.wav,we go,a\n1.wav,you go,b\n")
    task = tmp_path / "suite.yaml"
    task.write_text("suite: mine\ntitle: Mine\nabout: A.\ntasks: [librispeech_asr]\n")
    out = tmp_path / "out"
    results = run(model=model, suite=[task], corpus=[folder], out=out, **FAST)
    (score,) = results["tasks"][0]["scores"]
    assert score["published"]["value"] == pytest.approx(0.0271) and "Table 19" in score["published"]["source"]
    table, page = (out / "results.md").read_text(), (out / "report.html").read_text()
    assert "| published |" in table and "| 2.7 % |" in table and "Table 19" in table
    assert "<th>Published</th>" in page and "2.7 %" in page and "UniAudio 2.0, 3B" in page


def test_a_codec_alone_runs_on_a_data_set(tmp_path, model):
    folder = tmp_path / "audiocaps"
    for i in range(2):
        write_tone(folder / f"{i}.wav", 200 + i, 9_600)
    (folder / "list.csv").write_text("file,caption\n0.wav,a tone\n1.wav,a tone\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("suite: mine\ntitle: Mine\nabout: A.\ntasks: [codec_audiocaps]\n")
    codec = model / "audio_tokenizer"
    results = run(model=None, codec=[codec], suite=[suite], corpus=[folder], out=tmp_path / "out", **FAST)
    assert results["tasks"][0]["n"] == 2


def test_tasks_with_and_without_data_sets_are_told_apart(tmp_path, model):
    with pytest.raises(UserError, match="others without"):
        run(model=model, suite=["paper_few_shot", "starter"], out=tmp_path, **FAST)
