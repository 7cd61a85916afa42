"""docs/add_a_task.md: its files are written as they stand, and run."""

import re

from evaluation.metrics.registry import METRICS
from evaluation.task import _DELIVERS
from tests import ROOT
from tests.factories.evaluation import run

PAGE = (ROOT / "docs/add_a_task.md").read_text(encoding="utf-8")


def test_the_pages_files_run(model, tmp_path):
    files = re.findall(r"[Ss]ave this [^`]*`([\w.]+)`.*?```yaml\n(.*?)```", PAGE, flags=re.S)
    assert [name for name, _ in files] == ["animals.yaml", "mine.yaml"]
    for name, text in files:
        (tmp_path / name).write_text(text, encoding="utf-8")
    results = run(
        model=model, suite=tmp_path / "mine.yaml", limit=2, untrained_limit=0, processes=1, out=tmp_path / "out"
    )
    assert [task["task"] for task in results["tasks"]] == ["animals", "sound_caption"]
    for task in results["tasks"]:
        assert task["n"] == 2 and "skipped" not in task and task["scores"][0]["scorer"] == "label_in_text"
    assert (tmp_path / "out/report.html").is_file()


def test_the_page_lists_every_scorer_and_metric():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", PAGE, flags=re.M))
    for takes, scorers in _DELIVERS.items():
        metrics = {name for name, metric in METRICS.items() if metric.takes == takes}
        for scorer in scorers:
            assert set(re.findall(r"`(\w+)`", rows[scorer])) == metrics, scorer
