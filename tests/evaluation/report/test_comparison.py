"""Codecs side by side in the report: who is compared, which is best, what is said of the rest."""

from evaluation.report import comparison
from evaluation.report.side_by_side import html_table, table_of
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


def test_the_best_of_a_row_is_marked_whichever_end_is_better(tmp_path):
    for direction, best in (("lower", 1), ("higher", 3)):
        entries = [
            entry(str(v), scores=[MEL | {"value": float(v), "direction": direction, "stderr": None}]) for v in (1, 2, 3)
        ]
        table = html_table(table_of(entries))
        Reader(table)
        assert table.count('class="best"') == 1 and f'<td class="best">{best}.00 dB' in table
        assert "Left out: PESQ: needs &lt;pesq&gt;." in comparison.html_section(entries, {}, tmp_path, [0])


def test_what_a_codec_lacks_is_a_dash_and_fewer_clips_are_said():
    short = entry("b", scores=[MEL | {"n": 3}], bits_per_second=None)
    lines = comparison.markdown_tables(results(entry("a"), short, entry("c", scores=[])))
    row = next(line for line in lines if line.startswith("| mel"))
    assert "(of 3)" in row and row.split(" | ")[4] == "–"
    assert "| b |" in next(line for line in lines if line.startswith("| Score"))
    assert "<small>of 3</small>" in html_table(table_of([entry("a"), short]))
    assert comparison.html_plots([entry("a"), short]) == "", "one bit rate, no plot"
    plots = comparison.html_plots([entry("a"), short, entry("c", bits_per_second=3_000.0)])
    assert plots.count("<circle") == 2, "no bit rate, no point"


def test_a_codec_that_fails_leaves_the_others(tmp_path):
    gone = entry("b", skipped="too <long>", scores=[])
    assert "b: skipped: too &lt;long&gt;" in comparison.markdown_tables(results(entry("a"), gone))
    section = comparison.html_section([entry("a"), gone], {}, tmp_path, [0])
    assert "too &lt;long&gt;" in section and "<table" in section
    assert "<table" not in comparison.html_section([gone], {}, tmp_path, [0])


def test_what_the_data_lack_is_said_once(tmp_path):
    entries = [entry(name, skipped="no clips", scores=[], n=0) for name in "abc"]
    text = "\n".join(comparison.markdown_tables(results(*entries)))
    section = comparison.html_section(entries, {}, tmp_path, [0])
    assert text.count("no clips") == section.count("no clips") == 1 and "a: skipped" not in text


def of_stream(name, stream, value, **other):
    several = {} if stream == "codes" else {"name": f"{name}, {stream}"}
    made = score(name=name, metric="abx_across", scorer="tokens", direction="lower", value=value, chance=0.5, n=4)
    return made | {"score": name, "stream": stream, "about": f"At the rate of {stream}."} | several | other


def test_what_a_score_means_is_said_of_each_codec_where_it_differs(tmp_path):
    entries = [entry(c, scores=[of_stream("ABX", "codes", 0.2, about=f"At {c} Hz.")]) for c in ("5", "50")]
    section = comparison.html_section(entries, {}, tmp_path, [0])
    assert "<b>ABX</b> (5): At 5 Hz." in section and "<b>ABX</b> (50): At 50 Hz." in section
