"""The page of a comparison: complete in itself, harmless, and with the sounds of what changed."""

import re

import pytest

from evaluation.compare import page
from evaluation.compare.paired import Difference
from evaluation.compare.pairing import ScoreMeta, ScorePair, compare_runs
from evaluation.compare.run import read_run
from tests.evaluation.compare.folders import SAID, words_folder
from tests.evaluation.report.test_write import Reader


@pytest.fixture
def folders(tmp_path):
    a = words_folder(tmp_path / "a", SAID | {"x1": "one <b>two", "x4": "seven eight"})
    return a, words_folder(tmp_path / "b", SAID | {"x2": ""})


def html_of(folders):
    a, b = (read_run(folder) for folder in folders)
    return page.comparison_page(compare_runs([a], [b]), {"Date": "today"})


def test_it_opens_from_disk_with_everything_inside(folders):
    html = html_of(folders)
    read = Reader(html)
    assert read.tags.count("audio") == 9  # three items, each the original and two answers
    assert all(source.startswith("data:") for source in read.loads)
    assert read.links and all(link[1:] in read.ids for link in read.links)
    assert "one &lt;b&gt;two" in html and "http" not in re.sub(r"base64,[^\"]*", "", html)
    assert html.index("B is better") < html.index("B is worse") and "today" in html
    assert "one in 20 would be marked by chance" in html


def test_scores_of_one_unit_have_scales_of_their_own():
    percent, plain = ({"metric": "m", "direction": "higher", "percent": p, "unit": ""} for p in (True, False))

    def pair(meta, low, high):
        found = Difference((low + high) / 2, low, high, 1.0, "items", 1, 1, 1, 1.0)
        return ScorePair(ScoreMeta("s", **meta), (0.0,), (0.0,), 3, found)

    none = ScorePair(ScoreMeta("s", **plain), (0.0,), (0.0,), 0, None)
    scores = [pair(plain, -1.0, 2.0), pair(plain, -4.0, 0.5), none, pair(percent, 0.0, 0.1), pair(percent, -0.3, 0.1)]
    assert [page._limit(scores, score) for score in scores] == [2.0, 4.0, 0.0, 0.3, 0.3]


def test_a_sound_outside_the_folder_is_not_read(folders):
    path = folders[1] / "samples.jsonl"
    path.write_text(path.read_text().replace("audio/x2.flac", "../a/audio/x2.flac"))
    html = html_of(folders)
    assert Reader(html).tags.count("audio") == 8 and "cannot be read" in html


def test_sound_is_limited(folders, monkeypatch):
    monkeypatch.setattr(page, "AUDIO_BUDGET", 10)
    assert "limit of sound is reached" in html_of(folders)


def test_of_several_runs_the_first_is_heard(folders, tmp_path):
    more = words_folder(tmp_path / "c", SAID)
    runs = [read_run(folder) for folder in (*folders, more)]
    assert "those of the first run of each" in page.comparison_page(compare_runs(runs[:1], runs[1:]), {})
