"""Numbers as people read them."""

import pytest

from evaluation.compare.pairing import ScoreMeta, compare_runs
from evaluation.compare.run import read_run
from evaluation.compare.tables import HEAD, comparison_table, markdown, over_runs, probability, signed, with_error
from tests.evaluation.compare.folders import SAID, words_folder

PERCENT = ScoreMeta("words", "wer", "lower", True, "%")
DECIBEL = ScoreMeta("mel distance", "mel_distance", "lower", False, "dB")
PLAIN = ScoreMeta("STOI", "stoi", "higher", False, "")


@pytest.mark.parametrize(
    ("meta", "value", "error", "text"),
    [
        (PERCENT, 0.0321, 0.02, "+3.2 points"),
        (PERCENT, -0.0321, None, "-3.2 points"),
        (PERCENT, 0.0, None, "0.0 points"),
        (PERCENT, -0.00001, 0.02, "0.0 points"),
        (DECIBEL, 1.5, 0.4, "+1.50 dB"),
        (PLAIN, 0.0034, 0.0012, "+0.0034"),
        (PLAIN, 0.0034, 1e-12, "+0.003400"),
    ],
)
def test_differences_have_a_sign_and_two_digits_of_their_error(meta, value, error, text):
    assert signed(meta, value, error) == text
    assert signed(meta, value, error, unit=False) == text.split()[0]


def test_scores_of_runs():
    assert over_runs(PERCENT, ()) == "–" and over_runs(PERCENT, (0.25,)) == "25.0 %"
    assert over_runs(PERCENT, (0.1, 0.2, 0.3)) == "20.0 % ± 5.8"
    assert over_runs(PLAIN, (0.861, 0.867)) == "0.8640 ± 0.0030" and over_runs(PLAIN, (0.5, 0.5)) == "0.50"
    assert with_error(DECIBEL, 4.0, None) == "4.00 dB"


def test_probabilities():
    assert [probability(p) for p in (1.0, 0.0312, 0.0004)] == ["1.000", "0.031", "< 0.001"]


def test_a_marked_difference_is_bold_and_says_which_way(tmp_path):
    worse = dict.fromkeys(SAID, "") | {"x1": "one two"}
    runs = [[read_run(words_folder(tmp_path / name, answers))] for name, answers in (("a", SAID), ("b", worse))]
    found = compare_runs(*runs)
    (row,) = comparison_table(found).groups[0]
    assert found.marked == 1 and [cell.text for cell in row][-1] == "worse" and row[HEAD.index("B - A")].best
    text = markdown(found)
    assert "**+80.0 points**" in text and "**worse**" in text and "1 difference tested, 1 marked" in text
    assert compare_runs(*runs[::-1]).tasks[0].scores[0].verdict == "better"


def test_items_that_all_changed_alike_have_no_interval(tmp_path):
    nothing = dict.fromkeys(SAID, "")
    a, b = ([read_run(words_folder(tmp_path / n, answers))] for n, answers in (("a", SAID), ("b", nothing)))
    text = markdown(compare_runs(a, b))
    assert "| +100.0 points | no spread | 4 | 0 / 4 / 0 | 0.125 |  |" in text and "No spread: all items" in text


def test_texts_that_would_break_a_table_do_not(tmp_path):
    nasty = SAID | {"x1": "a | b\n<script>"}
    runs = [[read_run(words_folder(tmp_path / name, answers))] for name, answers in (("a", SAID), ("b", nasty))]
    text = markdown(compare_runs(*runs))
    (line,) = (line for line in text.splitlines() if line.startswith("| x1 |"))
    assert "a \\| b &lt;script&gt;" in line
