"""Tasks of tokens in a run: a row for each score and stream, beside chance and originals, and nothing made twice."""

import json

import numpy as np
import pytest

from auditory_sentences.corpora.clip import Clip
from codec import tokenizer as tokenizers
from codec.io.errors import UserError
from codec.streams import StreamSpec
from evaluation.cache import Cache
from evaluation.items import ItemBuilder
from evaluation.recordings import Recordings
from evaluation.task import load_suite, load_task
from evaluation.token_measures.task_rows import measure_tokens
from tests.evaluation.token_measures.planted import CODES, PlantedTokenizer, plant, spoken
from tests.factories.evaluation import run
from tests.factories.one_stream.xcodec import small_xcodec
from tests.factories.streams_tokenizer import StreamsTokenizer

TASK = """
task: mine
version: 1
title: Mine
about: A.
request: tokens
data: {{kind: any}}
scores: [{scores}]
"""


def write_list(folder, clips):
    (folder / "clips.jsonl").write_text("".join(clip.to_json() + "\n" for clip in clips))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Test clips of phones, and labelled clips of every split."""
    folder = tmp_path_factory.mktemp("corpus")
    clips = spoken(folder, {f"p{i}": i for i in range(5)}, speakers=3)
    rng = np.random.default_rng(0)
    for i in range(60):
        split = ("train", "train", "dev", "test")[i % 4]
        ids = [1 + i % 2, *rng.integers(4, CODES, 8).tolist()]
        labels = {"class": "ab"[i % 2]}
        clips.append(plant(folder, f"sound-{i}", ids, split=split, kind="sound", labels=labels))
    return write_list(folder, clips)


@pytest.fixture
def own_task(tmp_path):
    def write(*scores):
        (tmp_path / "mine.yaml").write_text(TASK.format(scores=", ".join(scores)))
        return load_task(tmp_path / "mine.yaml")

    return write


def test_a_run_has_rows_and_a_second_one_computes_nothing(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(tokenizers.TOKENIZERS, "planted", (PlantedTokenizer.__module__, "PlantedTokenizer"))
    PlantedTokenizer().eval().save_pretrained(tmp_path / "codec")
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "suite: s\ntitle: S\nabout: A.\ntasks: [codec_abx, codec_probes_sound, codec_usage, codec_stability]\n"
    )
    settings = {"codec": tmp_path / "codec", "suite": suite, "corpus": [corpus], "out": tmp_path / "out"}
    results = run(**settings)
    scores = {score["name"]: score for task in results["tasks"] for score in task["scores"]}
    assert len(scores) == 10 and all(score["chance"] is not None or "most" in name for name, score in scores.items())
    within = scores["phone ABX within speakers"]
    assert (within["value"], within["chance"], within["stream"], within["unit"]) == (0.0, 0.5, "codes", "%")
    assert within["original"]["value"] is not None and within["stderr"] == 0.0
    assert scores["bits per second at most"]["value"] == 200 and scores["after a shift by one sample"]["value"] == 1.0
    assert len(scores["codes in use"]["levels"]) == 1
    table = (tmp_path / "out" / "results.md").read_text()
    assert "phone ABX across speakers" in table and "200 bit/s" in table
    assert "codes in use" in (tmp_path / "out" / "report.html").read_text()
    monkeypatch.setattr(PlantedTokenizer, "encode", lambda *args: pytest.fail("encoded again"))
    monkeypatch.setattr("evaluation.token_measures.abx.distance_matrix", lambda *args: pytest.fail("measured again"))
    again = run(**settings)
    assert again["cache"]["misses"] == 0 and [t["scores"] for t in again["tasks"]] == [
        t["scores"] for t in results["tasks"]
    ]


def test_beside_a_codec_without_tokens(corpus, tmp_path, monkeypatch, capsys, recwarn):
    """Opus has no tokens: that is said once a task, is no warning, and a suite of both kinds gives all the rest."""
    monkeypatch.setitem(tokenizers.TOKENIZERS, "planted", (PlantedTokenizer.__module__, "PlantedTokenizer"))
    PlantedTokenizer().eval().save_pretrained(tmp_path / "codec")
    sounds = TASK.format(scores="{name: mel, metric: mel_distance, scorer: waveform}")
    sounds = sounds.replace("mine", "sounds").replace("request: tokens", "request: reconstruction")
    (tmp_path / "sounds.yaml").write_text(sounds.replace("kind: any", "kind: sound"))
    suite = tmp_path / "suite.yaml"
    suite.write_text("suite: s\ntitle: S\nabout: A.\ntasks: [sounds.yaml, codec_abx, codec_usage]\n")
    settings = {"suite": suite, "corpus": [corpus], "limit": 4, "processes": 1}
    codecs = [tmp_path / "codec", "opus@6", "opus@12"]
    results = run(codec=codecs, out=tmp_path / "out", quiet=False, **settings)
    done = [(task["task"], task["codec"], "skipped" in task) for task in results["tasks"]]
    assert [(task, skipped) for task, codec, skipped in done if codec == "opus@6"] == [
        ("sounds", False), ("codec_abx", True), ("codec_usage", True),
    ]  # fmt: skip
    said = capsys.readouterr().out
    why = "opus@6, opus@12: skipped: the codec gives no tokens"
    assert said.count(why) == said.count("no tokens") == 2 and "shots" not in said
    assert not [w for w in recwarn if "could not be evaluated" in str(w.message)]
    table, report = ((tmp_path / "out" / name).read_text() for name in ("results.md", "report.html"))
    assert table.count(why) == report.count(why) == 2
    assert "| bits per second used (higher is better) |" in table and table.count("| Score |") == 3
    again = run(codec=codecs, out=tmp_path / "out", **settings)
    assert again["cache"]["misses"] == 0 and again["tasks"][0]["scores"] == results["tasks"][0]["scores"]
    with pytest.raises(UserError, match="nothing could be evaluated: .*the codec gives no tokens"):
        run(codec=codecs[1:], out=tmp_path / "none", suite="codec_tokens", corpus=[corpus], limit=4, processes=1)


def test_other_phone_times_are_another_measure(tmp_path, own_task):
    clips = spoken(tmp_path / "c", {f"p{i}": i for i in range(5)}, speakers=2)
    builder = ItemBuilder(Recordings([write_list(tmp_path / "c", clips)]))
    task = own_task("{name: abx, measure: abx_within}")
    first = measure_tokens(task, builder, PlantedTokenizer().eval(), Cache(tmp_path / "cache"), None)
    times = tmp_path / "c" / "phones.jsonl"
    lines = [json.loads(line) for line in times.read_text().splitlines()]
    moved = [{"id": line["id"], "phones": [[a + 0.06, b + 0.06, p] for a, b, p in line["phones"]]} for line in lines]
    times.write_text("".join(json.dumps(line) + "\n" for line in moved))
    second = measure_tokens(task, builder, PlantedTokenizer().eval(), Cache(tmp_path / "cache"), None)
    assert first["scores"][0]["value"] == 0.0 < second["scores"][0]["value"]


def test_every_stream_has_a_row_and_probes_one_for_all_together(corpus, tmp_path, own_task):
    specs = (StreamSpec("slow", 5.0, 2, 8), StreamSpec("fast", 25.0, 2, 8))
    task = own_task("{name: class, measure: probe, of: class}", "{name: used, measure: codes_in_use}")
    builder = ItemBuilder(Recordings([corpus]))
    entry = measure_tokens(task, builder, StreamsTokenizer(specs), Cache(tmp_path / "cache"), 30)
    names = ["class, slow", "class, fast", "class, all streams", "used, slow", "used, fast"]
    assert [row["name"] for row in entry["scores"]] == names and entry["n"] == 24
    assert len({json.dumps(row["original"]) for row in entry["scores"][:3]}) == 1  # the same spectrum
    one = own_task("{name: used, measure: codes_in_use, stream: fast}")
    (row,) = measure_tokens(one, builder, StreamsTokenizer(specs), Cache(tmp_path / "cache"), 30)["scores"]
    assert row["stream"] == "fast" and row["value"] == entry["scores"][4]["value"]


def test_another_tokenizer_at_another_rate(corpus, tmp_path):
    """X-Codec, random, at 16 kHz: measured as any other."""
    builder, codec = ItemBuilder(Recordings([corpus])), small_xcodec()
    abx = measure_tokens(load_task("codec_abx"), builder, codec, Cache(tmp_path / "cache"), 12)
    assert [row["name"] for row in abx["scores"]] == ["phone ABX within speakers", "phone ABX across speakers"]
    assert all(0 <= row["value"] <= 0.6 and row["n"] > 10 for row in abx["scores"])
    stable = measure_tokens(load_task("codec_stability"), builder, codec, Cache(tmp_path / "cache"), 12)["scores"]
    assert all(len(row["levels"]) == 4 and 0 <= row["value"] <= 1 for row in stable)


def test_what_cannot_be_measured_is_said_and_the_rest_stands(corpus, tmp_path, own_task):
    builder, cache = ItemBuilder(Recordings([corpus])), Cache(tmp_path / "cache")
    missing = "{name: key, measure: probe, of: key}"
    entry = measure_tokens(own_task(missing, "{name: dead, measure: dead_codes}"), builder, PlantedTokenizer().eval(),
                           cache, None)  # fmt: skip
    assert [row["value"] is None for row in entry["scores"]] == [True, False]
    assert "Not measured: no clip of split 'train' knows its 'key'" in entry["scores"][0]["about"]
    with pytest.raises(UserError, match="the task 'mine' measures nothing: no clip"):
        measure_tokens(own_task(missing), builder, PlantedTokenizer().eval(), cache, None)


def test_an_unreadable_recording_is_left_out_and_counted(tmp_path, own_task):
    clips = [plant(tmp_path / "c", f"c{i}", 5 * [i], kind="sound") for i in range(3)]
    clips.append(Clip("gone", str(tmp_path / "c" / "gone.wav"), "sound", "test"))
    builder = ItemBuilder(Recordings([write_list(tmp_path / "c", clips)]))
    task = own_task("{name: used, measure: codes_in_use}")
    entry = measure_tokens(task, builder, PlantedTokenizer().eval(), Cache(tmp_path / "cache"), None)
    assert entry["n"] == 3 and [one["id"] for one in entry["unreadable"]] == ["gone"]


def test_every_measure_is_in_the_suite():
    from evaluation.token_measures.registry import TOKEN_MEASURES

    tasks = [load_task(name) for name in load_suite("codec_tokens").tasks]
    assert {score.measure for task in tasks for score in task.scores} == set(TOKEN_MEASURES)


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        ("{name: a, measure: abx_withn}", "no measure 'abx_withn'.*abx_within"),
        ("{name: a, measure: abx_within, metric: wer}", "has no metric"),
        ("{name: a, measure: probe}", "'of' says what"),
        ("{name: a, measure: abx_within, of: gender}", "'of' says what"),
        ("{name: a, metric: stoi, scorer: waveform}", "'tokens' goes with scores that have a 'measure'"),
        ("{name: a, metric: stoi, scorer: waveform, of: b}", "go with the key 'measure'"),
        ("{name: a}", "no metric"),
    ],
)
def test_a_score_that_makes_no_sense_is_refused(own_task, score, problem):
    with pytest.raises(UserError, match=problem):
        own_task(score)


def test_other_requests_take_neither_measures_nor_any_kind(tmp_path):
    text = TASK.format(scores="{name: a, measure: dead_codes}")
    for change, problem in (
        (("request: tokens", "request: reconstruction"), "goes with scores that have a 'measure'"),
        (("request: tokens", "request: tokens\nshots: [0, 1]"), "its 'shots' are"),
        (("data: {kind: any}", "data: {kind: all}"), "kind"),
    ):
        (tmp_path / "t.yaml").write_text(text.replace(*change))
        with pytest.raises(UserError, match=problem):
            load_task(tmp_path / "t.yaml")
    (tmp_path / "t.yaml").write_text(
        text.replace("request: tokens", "request: asr").replace("measure: dead_codes", "metric: wer, scorer: text")
    )
    with pytest.raises(UserError, match="needs one kind of clips"):
        load_task(tmp_path / "t.yaml")
