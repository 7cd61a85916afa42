"""Streams as data: how many frames a clip has by either rule, and what is written down of it."""

from __future__ import annotations

import pytest

from codec.io.errors import UserError
from codec.streams import StreamSpec, is_absent, plain_values


@pytest.mark.parametrize("hop, sample_rate", [(320, 16_000), (480, 24_000), (441, 16_000), (1, 8_000), (1920, 44_100)])
def test_frames_without_the_extra_one_are_those_that_were_started(hop, sample_rate):
    spec = StreamSpec("codes", sample_rate / hop, 8, 1024, extra_frame=False)
    for frames in (1, 2, 3, 10, 999, 10**7 + 1):
        for samples in {max((frames - 1) * hop + 1, frames * hop - 1), frames * hop}:
            assert spec.num_frames(samples, sample_rate) == frames
        assert spec.num_frames(frames * hop + 1, sample_rate) == frames + 1
        assert spec.least_samples(frames, sample_rate) == (frames - 1) * hop + 1


def test_the_rule_is_written_down_only_where_it_is_the_other_one():
    usual = StreamSpec("codes", 50.0, 8, 1024)
    assert plain_values(usual) == {"name": "codes", "rate": 50.0, "codebooks": 8, "codes": 1024}
    assert usual.num_frames(320, 16_000) == 2 and usual.num_frames(319, 16_000) == 1
    assert plain_values(StreamSpec("codes", 50.0, 8, 1024, extra_frame=False))["extra_frame"] is False


def test_an_absent_stream_is_one_that_another_kind_of_tokenizer_has():
    assert is_absent("descriptive", ["codes"], "x") and is_absent("codes", ["descriptive", "structural"], "x")
    assert not is_absent("codes", ["codes"], "x") and not is_absent("mine", ["mine"], "x")
    with pytest.raises(UserError, match="x is about a stream 'descriptiv', and the tokens have codes; did you mean 'd"):
        is_absent("descriptiv", ["codes"], "x")
