"""Windows cover everything once, whatever the length."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.layers.windows import context_windows, cross_faded, overlapping_windows


@given(st.integers(1, 500), st.integers(0, 8), st.integers(1, 40))
def test_context_windows_keep_every_unit_once(total, context, step):
    size = 2 * context + step
    windows = context_windows(total, size, context)
    assert [u for w in windows for u in range(w.keep_start, w.keep_stop)] == list(range(total))
    for w in windows:
        assert w.read_stop - w.read_start <= size
        assert w.read_start == max(0, w.keep_start - context) or len(windows) == 1
        assert w.read_stop == min(total, w.keep_stop + context) or len(windows) == 1


@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 40))
def test_overlapping_windows_share_exactly_the_overlap(total, overlap, more):
    windows = overlapping_windows(total, overlap + more, overlap)
    assert windows[0][0] == 0 and windows[-1][1] == total
    for (start, stop), (following, end) in pairwise(windows):
        assert following == stop - overlap and stop - start == overlap + more and end > stop
    longer = overlapping_windows(total + 7, overlap + more, overlap)  # a longer clip starts with the same windows
    assert [w[0] for w in longer][: len(windows)] == [w[0] for w in windows]


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 20), st.integers(1, 40), st.integers(1, 60))
def test_a_small_first_window_grows_to_the_others(total, overlap, more, first):
    size = overlap + more
    first = min(first, size)
    windows = overlapping_windows(total, size, overlap, first)
    assert windows[0] == (0, min(first, total)) and windows[-1][1] == total
    fresh = [stop - before for (_, before), (_, stop) in pairwise(windows)]
    assert [min(first * 2 ** (i + 1), more) for i in range(len(fresh) - 1)] == fresh[:-1]
    for (_, stop), (following, end) in pairwise(windows):
        assert following == max(0, stop - overlap) and stop < end <= following + size
    assert overlapping_windows(total, size, overlap, size) == overlapping_windows(total, size, overlap)


def test_windows_without_room_are_refused():
    with pytest.raises(ValueError, match="holds no more"):
        context_windows(10, 4, 2)
    with pytest.raises(ValueError, match="does not fit"):
        overlapping_windows(10, 4, 4)
    for first in (0, 5):
        with pytest.raises(ValueError, match=f"first window of {first} does not fit"):
            overlapping_windows(10, 4, 2, first)


@given(st.integers(1, 400), st.integers(2, 20))
def test_cutting_and_blending_gives_the_waveform_back(total, fade):
    wave = torch.arange(total, dtype=torch.float64)
    pieces = [(start, wave[start:stop]) for start, stop in overlapping_windows(total, 2 * fade + 30, fade)]
    torch.testing.assert_close(cross_faded(pieces, fade).double(), wave, atol=1e-4, rtol=0)


def test_the_blend_lies_in_the_middle_of_the_overlap():
    blended = cross_faded([(0, torch.zeros(10)), (4, torch.ones(10))], 2)
    assert blended.tolist() == [0.0] * 7 + [1.0] * 7
    with pytest.raises(ValueError, match="too few"):
        cross_faded([(0, torch.zeros(10)), (9, torch.ones(10))], 4)
