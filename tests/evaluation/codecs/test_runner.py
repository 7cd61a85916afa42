"""Codecs side by side: every reconstruction task for each, in one results folder, from the cache where it can be."""

import json

import numpy as np
import pytest

from codec.io.errors import UserError
from evaluation.cache import Cache
from evaluation.codecs.base import Reconstruction, TestedCodec
from evaluation.codecs.open import open_codec
from evaluation.codecs.runner import ReconstructionRunner, _read_bits
from evaluation.task import load_task
from tests.evaluation.codecs.rivals import write_dac
from tests.evaluation.report.test_write import Reader
from tests.factories.codec import small_codec
from tests.factories.evaluation import run
from tests.factories.one_stream.xcodec import small_xcodec

TASK = """
task: mine
version: 1
title: Mine
about: Tones.
request: reconstruction
data: {kind: sound, split: any, source: recordings}
scores:
  - {name: mel distance, metric: mel_distance, scorer: waveform, about: Of spectra.}
  - {name: SI-SDR, metric: si_sdr, scorer: waveform}
  - {name: distance, metric: frechet_distance, scorer: signal_features}
  - {name: agreement, metric: class_agreement, scorer: tagger}
"""


class Halved(TestedCodec):
    """Gives back half the level, in as many bits as samples."""

    name, fingerprint = "half", "half 1"

    def __init__(self):
        self.asked = 0

    def reconstruct(self, waveforms):
        self.asked += len(waveforms)
        return [Reconstruction(w / 2, len(w)) for w in waveforms]


@pytest.fixture
def asked(tmp_path):
    import soundfile

    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        wave = 0.2 * np.sin(2 * np.pi * (200 + 150 * i) * np.arange(12_000) / 24_000) + 0.02 * rng.standard_normal(
            12_000
        )
        soundfile.write(tmp_path / "sounds" / f"{i}.wav", wave, 24_000)
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "suite.yaml").write_text("suite: s\ntitle: S\nabout: A.\ntasks: [task.yaml]\n")
    return {"suite": tmp_path / "suite.yaml", "corpus": [tmp_path / "sounds"], "processes": 1, "device": "cpu"}


def test_three_codecs_in_one_run(asked, tmp_path):
    small_codec().save_pretrained(tmp_path / "own")
    codecs = [tmp_path / "own", "opus@12", str(write_dac(tmp_path / "dac"))]
    out = tmp_path / "out"
    results = run(codec=codecs, out=out, **asked)
    entries = results["tasks"]
    assert [entry["codec"] for entry in entries] == [codec["name"] for codec in results["codecs"]]
    assert [len(codec["fingerprint"]) > 5 for codec in results["codecs"]] == [True] * 3
    assert results["codec"] == results["codecs"][0] and entries[1]["bits_per_second"] > 6_000
    for entry in entries:
        scores = {score["name"]: score for score in entry["scores"]}
        assert set(scores) == {"mel distance", "SI-SDR", "distance"}
        assert "needs a tagger" in entry["left_out"]["agreement"]
        assert scores["mel distance"]["original"]["value"] == 0 and scores["SI-SDR"]["original"]["value"] == 100
        assert all(score["chance"] is not None and score["stderr"] is not None for score in scores.values())
        assert scores["distance"]["original"]["n"] == 4 and scores["distance"]["n"] == 8
        assert scores["mel distance"]["untrained"] is None
    by_name = {entry["codec"]: entry["scores"][0]["value"] for entry in entries}
    assert by_name["opus@12"] == min(by_name.values())
    assert "signal_features" in results["versions"]
    table = (out / "results.md").read_text()
    head = next(line for line in table.splitlines() if line.startswith("| Score"))
    assert "opus@12" in head and head.count("|") == 7
    rows = [line for line in table.splitlines() if line.startswith(("| mel", "| SI-SDR", "| distance"))]
    assert len(rows) == 3 and all(row.count("|") == 7 and row.count("±") >= 3 for row in rows)
    assert "Left out: agreement: class agreement needs a tagger" in table
    page = Reader((out / "report.html").read_text())
    assert page.tags.count("audio") == 2 * 4, "two clips: the original and three codecs"
    assert page.tags.count("circle") == 3 * 3, "a point for each codec in each of three plots"
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len({sample["audio"] for sample in samples}) == 24 and all((out / s["audio"]).is_file() for s in samples)
    again = run(codec=codecs, out=out, **asked)
    assert again["cache"]["misses"] == 0 and again["tasks"][0]["scores"] == entries[0]["scores"]
    with pytest.raises(UserError, match="holds the results of another evaluation"):
        run(codec=codecs[:2], out=out, **asked)


def test_one_rival_alone_has_the_table_of_one_codec(asked, tmp_path):
    results = run(codec="opus@6", out=tmp_path / "out", limit=2, **asked)
    assert "codecs" not in results and results["tasks"][0]["scores"][0]["untrained"] is None
    table = (tmp_path / "out" / "results.md").read_text().splitlines()
    assert table[0].startswith("| task | shots |") and "left out: agreement" in table[5]


class ItemOf:
    def __init__(self, wave):
        self.recording = wave


def test_a_rival_is_asked_once_and_its_bits_are_kept(tmp_path):
    codec, task = Halved(), load_task("codec_recordings")
    items = [ItemOf(np.full(n, 0.5, np.float32)) for n in (24_000, 12_000)]
    for again in range(2):
        runner = ReconstructionRunner(codec, Cache(tmp_path), "half")
        answers = runner.answer(task, items)
        assert [answer.bits for answer in answers] == [24_000, 12_000] and codec.asked == 2, again
        assert runner.bits_per_second(items, answers) == 24_000
        assert np.allclose(answers[0].waveform, 0.25, atol=1e-4)
    assert runner.untrained(0) is None


def test_a_tokenizer_at_another_rate_hears_the_clip_at_its_own(tmp_path):
    codec = small_xcodec()
    assert codec.sample_rate == 16_000
    codec.save_pretrained(tmp_path / "x")
    runner = ReconstructionRunner(open_codec(tmp_path / "x"), Cache(tmp_path / "cache"), "x")
    wave = (0.1 * np.random.default_rng(0).standard_normal(24_000)).astype(np.float32)
    (answer,) = runner.answer(load_task("codec_recordings"), [ItemOf(wave)])
    assert answer.waveform.shape == (24_000,) and runner.untrained(1).fingerprint != runner.fingerprint


@pytest.mark.parametrize("plain", [None, {}, {"bits": 0.5}, {"bits": True}, 3])
def test_bits_that_nobody_wrote_are_not_read(plain):
    with pytest.raises(ValueError, match="no number of bits"):
        _read_bits(plain)
