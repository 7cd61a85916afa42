"""Mean and standard error over runs."""

import json

import pytest

from codec.io.errors import UserError
from evaluation.compare.average import average, average_markdown, average_sentences, average_table
from evaluation.compare.run import read_run
from tests.evaluation.compare.folders import SAID, words_folder, words_task, write_folder

ANSWERS = ({"x1": "one two"}, {"x1": "one"}, {"x1": ""})  # 1, 2 and 3 words missing of 10


def runs_in(folder, *answers):
    made = [words_folder(folder / f"run{i}", SAID | one) for i, one in enumerate(answers)]
    return [read_run(one, items=False) for one in made]


def test_a_mean_by_hand(tmp_path):
    runs = runs_in(tmp_path, *ANSWERS)
    (row,), left_out = average(runs)
    assert row.values == (0.1, 0.2, 0.3) and row.mean == pytest.approx(0.2)
    assert row.stderr == pytest.approx(0.1 / 3**0.5) and row.of_items == pytest.approx(0.1)
    assert row.items == (4, 4) and row.chance == 1.0 and not left_out
    text = average_markdown(runs, [row], left_out)
    assert "| 20.0 % ± 5.8 | 3 | 10.0, 20.0, 30.0 | 10.0 % | 4 | 100.0 % |" in text and "run0" in text


def test_what_not_every_run_has_is_named(tmp_path):
    runs = runs_in(tmp_path, *ANSWERS[:2])
    folder = tmp_path / "third"
    skipped, _ = words_task(folder, {}, skipped="no clips")
    more = words_task(folder, SAID, "more")
    runs.append(read_run(write_folder(folder, (skipped, []), more), items=False))
    with pytest.raises(UserError, match="no score in common .*asr: was skipped in .*no clips"):
        average(runs)
    rows, left_out = average(runs[:2])
    assert len(rows) == 1 and not left_out
    assert "three or more tell" in " ".join(average_sentences(runs[:2], rows, left_out))


def test_a_score_without_a_value_in_one_run(tmp_path):
    runs = runs_in(tmp_path, *ANSWERS)
    path = tmp_path / "run2/results.json"
    results = json.loads(path.read_text())
    results["tasks"][0]["scores"][0] |= {"value": None, "stderr": None}
    path.write_text(json.dumps(results))
    runs[2] = read_run(path.parent, items=False)
    rows, left_out = average(runs)
    assert rows[0].values == (0.1, 0.2) and average_table(rows).groups[0][0][3].text == "2"
    assert "Without a value in every run: asr, words." in average_sentences(runs, rows, left_out)


def test_one_model_twice_is_no_spread(tmp_path):
    runs = runs_in(tmp_path, ANSWERS[0])
    with pytest.raises(UserError, match="of the same model or codec"):
        average([*runs, read_run(words_folder(tmp_path / "copy", SAID, model="run0"), items=False)])
