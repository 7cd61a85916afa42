"""Usage, dead codes and perplexity of codebooks, counted by hand."""

import pytest
import torch

from training.codec.losses.codebook_usage import CodebookUsage


def test_usage_and_perplexity():
    usage = CodebookUsage(4, {"even": range(0, 1), "dead": range(1, 2), "both": range(0, 2)})
    ids = torch.tensor(
        [[[0, 2], [1, 2]], [[2, 2], [3, 2]]]
    )  # (2, 2, 2): one codebook in full use, one with a single code
    usage.count(ids)
    report = usage.report()
    assert report["even_usage"] == 1.0 and report["even_perplexity"] == pytest.approx(4.0)
    assert report["even_dead"] == 0 and report["dead_dead"] == 3 and report["both_dead"] == 1.5
    assert report["dead_usage"] == 0.25 and report["dead_perplexity"] == pytest.approx(1.0)
    assert report["both_usage"] == pytest.approx(0.625) and report["both_perplexity"] == pytest.approx(2.5)


def test_frames_beyond_a_clip_do_not_count_and_reports_start_anew():
    usage = CodebookUsage(4, {"all": range(0, 1)})
    usage.count(torch.tensor([[[0], [1], [-1], [-1]]]))
    assert usage.report()["all_usage"] == 0.5
    usage.count(torch.tensor([[[3]]]))
    assert usage.report()["all_usage"] == 0.25
    assert usage.report()["all_usage"] == 0.0
