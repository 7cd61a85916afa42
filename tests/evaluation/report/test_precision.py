"""The sentence on what the number of items allows to be told apart."""

import numpy as np
import pytest

from evaluation.report import write
from evaluation.report.precision import APART, half_width, told_apart
from tests.evaluation.report.test_write import results, score


def entry(*scores):
    return {"scores": list(scores)}


def test_the_numbers_of_forty_items():
    said = told_apart([entry(score(n=40, stderr=0.079), score(n=40, stderr=0.02))])
    assert said.startswith("Of 40 items a share near 50 % is known to ± 15.5 points (95 %)")
    assert "told apart by about 22 points, or in general by 2.8 standard errors (here 2.0 to 7.9 points each)" in said


def test_several_counts_are_a_span():
    said = told_apart([entry(score(n=16)), entry(score(n=40))])
    assert "Of 16 to 40 items" in said and "± 15.5 to 24.5 points" in said and "about 22 to 35 points" in said


def test_nothing_is_said_without_a_share_of_items():
    assert told_apart([entry(), entry(score(percent=False)), entry(score(n=1)), entry(score(value=None, n=0))]) == ""
    assert told_apart([entry(score(scorer="tokens", n=40))]) == ""


def test_half_widths_hold_as_many_shares_as_they_say():
    rng = np.random.default_rng(0)
    shares = rng.binomial(100, 0.5, size=20_000) / 100
    assert np.mean(np.abs(shares - 0.5) <= half_width(100)) == pytest.approx(0.95, abs=0.01)
    others = rng.binomial(100, 0.5, size=20_000) / 100
    assert np.mean(np.abs(shares - others) <= APART * np.sqrt(0.25 / 100)) == pytest.approx(0.95, abs=0.01)


def test_table_and_report_say_it(tmp_path):
    made = results([])
    made["tasks"][0]["scores"] = [score(n=40)]
    write.write_report(made, tmp_path)
    for name in ("results.md", "report.html"):
        assert "Of 40 items a share near 50 %" in (tmp_path / name).read_text()
