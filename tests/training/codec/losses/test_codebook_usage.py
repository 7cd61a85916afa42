"""Usage, dead codes and perplexity of codebooks, counted by hand."""

import pytest
import torch

from training.codec.losses.codebook_usage import CodebookHealth


def test_usage_and_perplexity():
    health = CodebookHealth(4, {"even": range(0, 1), "dead": range(1, 2), "both": range(0, 2)})
    ids = torch.tensor(
        [[[0, 2], [1, 2]], [[2, 2], [3, 2]]]
    )  # (2, 2, 2): one codebook in full use, one with a single code
    health.count(ids)
    report = health.report()
    assert report["even_usage"] == 1.0 and report["even_perplexity"] == pytest.approx(4.0)
    assert report["even_dead"] == 0 and report["dead_dead"] == 3 and report["both_dead"] == 1.5
    assert report["dead_usage"] == 0.25 and report["dead_perplexity"] == pytest.approx(1.0)
    assert report["both_usage"] == pytest.approx(0.625) and report["both_perplexity"] == pytest.approx(2.5)


def test_frames_beyond_a_clip_do_not_count_and_reports_start_anew():
    health = CodebookHealth(4, {"all": range(0, 1)})
    health.count(torch.tensor([[[0], [1], [-1], [-1]]]))
    assert health.report()["all_usage"] == 0.5
    health.count(torch.tensor([[[3]]]))
    assert health.report()["all_usage"] == 0.25
    assert health.report()["all_usage"] == 0.0
