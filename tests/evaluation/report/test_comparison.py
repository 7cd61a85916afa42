"""Codecs side by side in the report: who is compared, which is best, what is said of the rest."""

from evaluation.report import comparison
from tests.evaluation.report.test_write import Reader, score

MEL = score(name="mel", metric="mel_distance", percent=False, unit="dB", direction="lower", value=2.0, n=4)


def entry(codec, **other):
    made = {
        "task": "mine", "version": 1, "title": "A | b", "about": "<i>", "shots": 0, "codec": codec, "n": 4,
        "bits_per_second": 6_000.0, "scores": [MEL], "left_out": {"PESQ": "needs <pesq>"},
    }  # fmt: skip
    return made | other


def results(*entries):
    return {"codecs": [{"name": e["codec"]} for e in entries], "tasks": list(entries)}


def test_two_codecs_are_compared_and_one_is_not():
    assert list(comparison.compared(results(entry("a"), entry("b")))) == ["mine"]
    assert comparison.compared(results(entry("a"))) == comparison.compared({"tasks": [entry("a")]}) == {}
    asked = {"task": "asr", "shots": 0, "scores": []}
    assert list(comparison.compared({"codecs": [{}, {}], "tasks": [asked, entry("a"), entry("b")]})) == ["mine"]


def test_the_best_of_a_row_is_marked_whichever_end_is_better():
    for direction, best in (("lower", 1), ("higher", 3)):
        entries = [
            entry(str(v), scores=[MEL | {"value": float(v), "direction": direction, "stderr": None}]) for v in (1, 2, 3)
        ]
        table = comparison.html_table(entries)
        Reader(table)
        assert table.count("class=best") == 1 and f"<td class=best>{best}.00 dB" in table
        assert "Left out: PESQ: needs &lt;pesq&gt;." in table


def test_what_a_codec_lacks_is_a_dash_and_fewer_clips_are_said():
    short = entry("b", scores=[MEL | {"n": 3}], bits_per_second=None)
    lines = comparison.markdown_tables(results(entry("a"), short, entry("c", scores=[])))
    row = next(line for line in lines if line.startswith("| mel"))
    assert "(n 3)" in row and row.split(" | ")[5] == "–"
    assert "| b |" in next(line for line in lines if line.startswith("| score"))
    assert "<small>of 3</small>" in comparison.html_table([entry("a"), short])
    plots = comparison.html_plots([entry("a"), short])
    assert plots.count("<circle") == 1, "no bit rate, no point"


def test_a_codec_that_fails_leaves_the_others():
    gone = entry("b", skipped="too <long>", scores=[])
    assert "b: skipped: too &lt;long&gt;" in comparison.markdown_tables(results(entry("a"), gone))
    assert "too &lt;long&gt;" in comparison.html_table([entry("a"), gone])
    assert "<table" not in comparison.html_table([gone])


def test_what_the_data_lack_is_said_once():
    entries = [entry(name, skipped="no clips", scores=[], n=0) for name in "abc"]
    text = "\n".join(comparison.markdown_tables(results(*entries)))
    assert text.count("no clips") == comparison.html_table(entries).count("no clips") == 1 and "a: skipped" not in text
