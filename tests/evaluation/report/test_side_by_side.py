"""Tables of codecs side by side: a row for each codec and stream where tokens are measured, and what is best."""

from evaluation.report import comparison
from evaluation.report.side_by_side import html_table, table_of
from tests.evaluation.report.test_comparison import entry, of_stream, results


def test_tokens_have_a_row_for_each_codec_and_stream():
    """Streams of another number have other names; the score is one, and what stands beside it is each one's own."""
    known = of_stream("ABX", "fast", 0.1, original={"value": 0.05, "stderr": None, "n": 4})
    ours = entry("ours", scores=[of_stream("ABX", "slow", 0.3), known])
    rival = entry("x@2", scores=[of_stream("ABX", "codes", 0.2)], bits_per_second=2_000.0)
    lines = comparison.markdown_tables(results(ours, rival, entry("opus@6", skipped="no tokens", scores=[])))
    start = next(i for i, line in enumerate(lines) if line.startswith("| Score"))
    cells = [[one.strip() for one in line.strip("|").split("|")] for line in lines[start:]]
    assert cells[0] == ["Score", "Codec", "Stream", "Tokens", "Originals", "Chance"]
    assert [row[:3] for row in cells[2:5]] == [
        ["ABX (lower is better)", "ours (6 kb/s)", "slow"], ["", "ours", "fast"], ["", "x@2 (2 kb/s)", "codes"],
    ]  # fmt: skip
    assert [row[3].startswith("**10.0 %") for row in cells[2:5]] == [False, True, False]
    assert cells[2][4] == "–" and cells[3][4] == "5.0 %" and cells[4][5] == "50.0 %"
    assert lines[start - 2] == "opus@6: skipped: no tokens" and lines[start - 1] == "", "else it joins the table"
    plots = comparison.html_plots([ours, rival])
    assert plots.count("<circle") == 3 and "ours, slow" in plots and "ours, fast" in plots


def test_bits_and_counts_of_tokens_have_no_best_and_no_plot():
    entries = [
        entry(str(v), scores=[of_stream("bits", "codes", v, percent=False, original=None)], bits_per_second=1000.0 * v)
        for v in (1, 2)
    ]
    table = html_table(table_of(entries))
    assert "best" not in table.replace("is better", "") and "Originals" not in table
    assert comparison.html_plots(entries) == ""


def test_streams_of_one_codec_are_no_rivals():
    alone = entry("ours", scores=[of_stream("ABX", "slow", 0.3), of_stream("ABX", "fast", 0.1)])
    assert 'class="best"' not in html_table(table_of([alone]))
