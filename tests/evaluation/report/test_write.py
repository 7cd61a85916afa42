import base64
import html
import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.report import figures, write
from evaluation.runner import flac

VOID = {"meta", "img", "br", "hr", "link", "input", "line", "circle", "rect", "polygon"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects what a browser would load."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.ids, self.links, self.tags = [], [], set(), [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.loads += [attrs[k] for k in ("src", "srcset", "data", "poster") if k in attrs]
        self.links += [attrs["href"]] if "href" in attrs else []
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def score(**other):
    estimate = {"value": 0.5, "stderr": 0.1, "n": 2, "unparsed": 1}
    plain = {
        "name": "class",
        "metric": "accuracy",
        "scorer": "label_in_text",
        "about": "",
        "unit": "%",
        "direction": "higher",
    }
    return (
        plain
        | {"percent": True, **estimate, "chance": 0.25, "untrained": None, "original": None, "codec": None}
        | other
    )


def results(samples, **other):
    task = {
        "task": "mine", "version": 1, "fingerprint": "f", "title": "A <b>task</b>", "about": "x & y", "shots": 0,
        "n": 2, "scores": [score()], "samples": samples, "seconds": 1.0,
    }  # fmt: skip
    skipped = task | {"task": "other", "skipped": "no clips", "scores": [], "samples": [], "n": 0}
    return {
        "suites": [{"suite": "s", "title": "S", "about": "About."}], "date": "2030-01-02T03:04:05+00:00",
        "git_commit": "",
        "seconds": 2.0, "machine": {"cores": 4}, "codec": {"source": "a/b", "fingerprint": "c", "parameters": 1000},
        "tasks": [task, skipped],
    } | other  # fmt: skip


@pytest.fixture
def sample(tmp_path):
    wave = 0.3 * np.sin(np.arange(12_000) / 20)
    soundfile.write(tmp_path / "original.wav", wave, 24_000)
    (tmp_path / "answer.flac").write_bytes(flac(wave))
    return {
        "task": "mine", "shots": 0, "id": "clip-1", "path": str(tmp_path / "original.wav"),
        "given": ["Describe <this>.", "<audio>"], "expected": "a dog", "answer": "a <script>alert(1)</script>",
        "reason": "max_rows",
        "predictions": {"class": {"read": None, "reference": "dog", "original": None}}, "audio": "answer.flac",
    }  # fmt: skip


def test_report_opens_from_disk_with_everything_inside(tmp_path, sample):
    write.write_report(results([sample]), tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Reader(text)
    assert page.tags.count("audio") == page.tags.count("img") == 2 and page.tags.count("svg") >= 4
    assert all(source.startswith("data:") for source in page.loads) and len(page.loads) == 4
    assert (
        not re.search(r"(https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", text))
        and "@import" not in text
        and "url(" not in text
    )
    assert all(link[1:] in page.ids for link in page.links)  # contents lead somewhere
    assert "script" not in page.tags and "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text


def test_the_judges_have_a_table_of_their_own(tmp_path, sample):
    """Each score of sound once, whatever the number of codecs and shots; none without such scores."""
    at = {"value": 0.25, "stderr": None, "n": 2}
    heard = score(name="words", scorer="recogniser", silence=at, noise=at | {"value": 0.75}, original=at)
    found = results([sample])
    found["tasks"][0]["scores"].append(heard)
    found["tasks"].append(found["tasks"][0] | {"shots": 4})
    write.write_report(found, tmp_path)
    table, page = (tmp_path / "results.md").read_text(), (tmp_path / "report.html").read_text()
    assert table.count("| 25.0 % | 75.0 % | 25.0 % |") == 1 and "| Score of sound | Silence | Noise |" in table
    assert page.count('id="judges"') == 1 and page.count("recogniser, higher is better") == 1
    write.write_report(results([sample]), tmp_path)
    assert "Silence" not in (tmp_path / "results.md").read_text()
    assert 'id="judges"' not in (tmp_path / "report.html").read_text()


def test_scores_apart_have_a_table_of_their_own(tmp_path, sample):
    part = {"value": 0.25, "stderr": 0.125, "n": 2}
    split = score(name="words", apart={"<digits>": part, "sentence": part | {"value": 0.0}})
    found = results([sample])
    found["tasks"][0]["scores"].append(split)
    write.write_report(found, tmp_path)
    table, page = (tmp_path / "results.md").read_text(), (tmp_path / "report.html").read_text()
    title = html.escape(found["tasks"][0]["title"])
    assert f"| {title} · words | &lt;digits&gt; | 25.0 % ± 12.5 | 2 |\n|  | sentence | 0.0 % ± 12.5 | 2 |" in table
    assert page.count('id="apart"') == 1 and "&lt;digits&gt;" in page
    Reader(page)
    write.write_report(results([sample]), tmp_path)
    assert 'id="apart"' not in (tmp_path / "report.html").read_text()


def test_sounds_and_pictures_can_be_decoded(tmp_path, sample):
    write.write_report(results([sample]), tmp_path)
    for source in Reader((tmp_path / "report.html").read_text()).loads:
        kind, content = source.removeprefix("data:").split(";base64,")
        content = base64.b64decode(content, validate=True)
        if kind == "audio/flac":
            wave, rate = soundfile.read(io.BytesIO(content))
            assert rate == 24_000 and len(wave) == 12_000 and np.abs(wave).max() == pytest.approx(0.3, abs=0.01)
        else:
            assert kind == "image/png" and content.startswith(b"\x89PNG")


def test_sound_is_limited_and_the_report_says_so(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(write, "AUDIO_BUDGET", len(flac(soundfile.read(sample["path"])[0])) + 10)
    write.write_report(results([sample] * 3), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert Reader(text).tags.count("audio") == 1 and text.count("limit of sound is reached") == 5


def test_a_recording_that_has_moved_does_not_spoil_the_report(tmp_path, sample):
    write.write_report(results([sample | {"path": str(tmp_path / "gone.wav")}]), tmp_path)
    assert "its file is no longer there" in (tmp_path / "report.html").read_text()


def test_markdown_has_one_row_per_score():
    lines = write.markdown(results([])).splitlines()
    assert lines[2] == "| A &lt;b&gt;task&lt;/b&gt; | 0 | class | higher | 50.0 % ± 10.0 | – | 25.0 % | – | – | 2 | 1 |"
    assert "skipped: no clips" in lines[3]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_fewer_items_of_the_untrained_model_are_said():
    untrained = {"value": 0.1, "stderr": None, "n": 1, "unparsed": 0}
    task = results([])["tasks"][0] | {"scores": [score(untrained=untrained)]}
    assert "10.0 % (n 1)" in write.markdown(results([]) | {"tasks": [task]})


def test_word_differences_are_marked():
    task = {"scores": [{"metric": "wer"}]}
    marked = write._marked({"expected": "one two three", "answer": "one too three four"}, task)
    assert marked == "one <del>two</del> <ins>too</ins> three <ins>four</ins>"


def test_the_better_end_of_a_scale_is_on_the_right():
    def dot(direction, value):
        svg = figures.scale_svg(
            score(value=value, direction=direction, stderr=None), write._limits(score(direction=direction))
        )
        return float(re.search(r'class="model" cx="([\d.]+)"', svg)[1])

    assert dot("higher", 0.9) > dot("higher", 0.1) and dot("lower", 0.9) < dot("lower", 0.1)
    assert dot("lower", 3.0) == dot("lower", 1.0)  # beyond the scale is at its end


@pytest.mark.parametrize("length", [1, 100, 1_000_000])
def test_figures_of_any_length(length):
    wave = np.random.default_rng(0).uniform(-2, 2, length)
    Reader(figures.waveform_svg(wave))
    assert len(figures.spectrogram_png(wave)) < 400_000


@pytest.mark.parametrize("length", [0, 10_000])
def test_a_recording_that_is_damaged_or_empty_does_not_spoil_the_report(tmp_path, sample, length):
    path = tmp_path / "damaged.flac"
    path.write_bytes((tmp_path / "answer.flac").read_bytes()[:100] if length else b"")
    write.write_report(results([sample | {"path": str(path)}]), tmp_path)
    assert "cannot be read" in (tmp_path / "report.html").read_text()


def test_a_path_that_is_not_utf_8_can_be_had_back(tmp_path, sample):
    path = os.fsdecode(b"/nowhere/\xff\xfe.wav")
    write.write_report(results([sample | {"path": path, "id": "\udcff"}], command=path), tmp_path)
    (line,) = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["path"] == path and "\\xff" in (tmp_path / "report.html").read_text(encoding="utf-8")


TEXT = st.text(alphabet=st.characters(exclude_categories=[]), max_size=30) | st.sampled_from(
    [
        "|",
        "\\|",
        "<b>",
        "</table>",
        "\u202e",
        "\r\n",
        "\0",
        "x" * 100_000,
        "مرحبا",
        "👩‍👩‍👧",
        "]]>",
        "-->",
        "`|`",
        "&amp;",
    ]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(TEXT, min_size=9, max_size=9))
def test_no_text_breaks_the_page_or_the_table(tmp_path, sample, texts):
    title, about, name, given_, expected, answer, read, reference, skipped = texts
    reading = {"read": read, "reference": reference, "original": None}
    odd = sample | {"given": [given_], "expected": expected, "answer": answer, "predictions": {name: reading}}
    made = results([odd])
    made["tasks"][0] |= {"title": title, "about": about, "scores": [score(name=name, about=about, metric="wer")]}
    made["tasks"][1] |= {"title": title, "skipped": skipped}
    made["codec"]["source"] = name
    write.write_report(made, tmp_path)
    page, table = ((tmp_path / file).read_text(encoding="utf-8") for file in ("report.html", "results.md"))
    tags = set(Reader(page).tags)
    assert not tags & {"script", "iframe"} and len(page) < 1_000_000
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page + table)
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in table.splitlines()[:4]}) == 1


def test_what_is_to_be_known_about_the_number_of_items_is_said(tmp_path):
    made = results([])
    made["tasks"][0] |= {"scores": [score(empty_references=2)], "unreadable": [{"id": "a", "why": "gone"}]}
    write.write_report(made, tmp_path)
    assert "| 2 (2 of silence, 1 recording unreadable) |" in (tmp_path / "results.md").read_text()
    assert "<small>2 of silence, 1 recording unreadable</small>" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_scale_of_zeros_can_be_drawn(direction):
    nothing = score(value=0.0, percent=False, direction=direction, metric="mel_distance", chance=0.0)
    assert "<svg" in figures.scale_svg(nothing, write._limits(nothing))
