"""How long audio is cut into windows, for encoding (with context on both sides) and decoding (with overlap).

All borders are whole frames of every rate, so windows put end to end have exactly the frames of the clip: no drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.io.errors import UserError

BLOCK_SAMPLES = 9600  # 0.4 s at 24 kHz: 2 descriptive frames, 5 structural frames, 10 latent frames, 20 frames at 50 Hz

SEGMENT_BLOCKS = 75  # 30 s: what a segment of the published tokenisation gives tokens for
SEGMENT_SAMPLES = SEGMENT_BLOCKS * BLOCK_SAMPLES + 240  # samples of a segment


@dataclass(frozen=True)
class Window:
    """One window: what is computed, and what of it is used."""

    # first unit that is computed
    read_start: int
    # the unit behind the last one that is computed
    read_stop: int
    # first unit that is used
    keep_start: int
    # the unit behind the last one that is used
    keep_stop: int


def context_windows(total: int, window: int, context: int) -> list[Window]:
    """Windows of at most `window` units that keep every unit exactly once, each with `context` units on either side.

    A total that fits is one window. Raises ValueError where no unit would be left to keep.
    """
    if window <= 2 * context:
        raise ValueError(f"a window of {window} holds no more than its context of 2 x {context}")
    if total <= window:
        return [Window(0, total, 0, total)]
    step = window - 2 * context
    return [
        Window(max(0, start - context), min(total, start + step + context), start, min(total, start + step))
        for start in range(0, total, step)
    ]


def repeated_segments(total: int) -> list[Window]:
    """The segments in which the published tokenisation encodes `total` blocks: whole ones, the last one too."""
    return [
        Window(start, start + SEGMENT_BLOCKS, start, start + SEGMENT_BLOCKS)
        for start in range(0, total, SEGMENT_BLOCKS)
    ]


class RepeatedClip:
    """A clip of `num_samples` repeated without end, out of which the published tokenisation cuts its segments.

    read(start, stop) gives samples of the clip. It is called in ascending order, so that a long clip need not be in
    memory: of what comes again after its end, no more than a segment and a bit is kept.
    """

    def __init__(self, num_samples: int, read: Callable[[int, int], Tensor]) -> None:
        self._num_samples, self._read = num_samples, read
        reach = len(repeated_segments(num_samples // BLOCK_SAMPLES + 1)) * SEGMENT_SAMPLES - num_samples
        self._again = min(num_samples, reach)  # samples of the clip that are encoded a second time
        self._beginning: Tensor | None = None

    def segment(self, window: Window) -> Tensor:
        """The samples of a segment: (SEGMENT_SAMPLES,). Segments are asked for from the first to the last.

        They lie end to end, so that each begins 10 ms later in the clip than its tokens imply, as published.
        """
        start = window.read_start // SEGMENT_BLOCKS * SEGMENT_SAMPLES
        stop, end = start + SEGMENT_SAMPLES, self._num_samples
        if self._beginning is None:
            self._beginning = self._read(0, self._again).clone()
        pieces = [self._read(start, min(stop, end))] if start < end else []
        if stop > end:
            positions = torch.arange(max(start, end), stop, device=self._beginning.device)
            pieces.append(self._beginning[positions % end])
        return torch.cat(pieces)


class BlockReader:
    """A clip that arrives in blocks (n,), read forwards: no stretch begins before the one that was read last."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self._blocks, self._held, self._start = iter(blocks), torch.zeros(0), 0

    def samples(self, start: int, stop: int) -> Tensor:
        """[start, stop) of the clip. Raises UserError where it ends before, or holds NaN or infinity."""
        self._held, self._start = self._held[start - self._start :], start
        pieces, count = [self._held], len(self._held)
        while count < stop - start and (block := next(self._blocks, None)) is not None:
            if block.ndim != 1 or not torch.isfinite(block).all():
                raise UserError("a block of sound to encode must be mono, (n,), without NaN or infinity; repair it")
            pieces.append(block)
            count += len(block)
        if count < stop - start:
            raise UserError(f"the sound ended after {start + count} samples, more were announced; copy it again")
        self._held = torch.cat(pieces)
        return self._held[: stop - start]

    def has_more(self) -> bool:
        """Whether anything follows the samples that were asked for last, once those reached the clip's end."""
        return next(self._blocks, None) is not None


def endless_windows(window: int, overlap: int, first: int | None = None) -> Iterator[tuple[int, int]]:
    """[start, stop) of windows of at most `window` units, each starting `overlap` units before the last one stops.

    Args:
        window: Most units of a window.
        overlap: Units that a window shares with the one before.
        first: Units of the first window, for low latency; each later window then brings twice as many new units as the
            one before, until it brings `window` - `overlap`. None: `window` from the start.

    Raises:
        ValueError: The sizes do not fit each other.
    """
    first = window if first is None else first
    if not 0 < overlap < window:
        raise ValueError(f"an overlap of {overlap} does not fit a window of {window}")
    if not 0 < first <= window:
        raise ValueError(f"a first window of {first} does not fit windows of {window}")
    start, stop, fresh = 0, first, first
    while True:
        yield start, stop
        fresh = min(2 * fresh, window - overlap)
        start, stop = max(0, stop - overlap), stop + fresh


def overlapping_windows(total: int, window: int, overlap: int, first: int | None = None) -> list[tuple[int, int]]:
    """`endless_windows` up to a total: as many as it takes, the last one cut to it."""
    windows = []
    for start, stop in endless_windows(window, overlap, first):
        windows.append((start, min(stop, total)))
        if stop >= total:
            break
    return windows


def cross_faded(pieces: Sequence[tuple[int, Tensor]], fade: int) -> Tensor:
    """One waveform (n,) of pieces (start, samples), each overlapping the last one by `fade` samples or more.

    The blend is linear and lies in the middle of the overlap, as far as can be from where either piece was cut.
    """
    rise = torch.linspace(0.0, 1.0, fade, device=pieces[0][1].device)
    whole = pieces[0][1]
    for start, piece in pieces[1:]:
        begin = (start + len(whole) - fade) // 2
        if begin < start:
            raise ValueError(f"two windows overlap by {len(whole) - start} samples, too few for a fade of {fade}")
        fresh = piece[begin - start :]
        blended = (1 - rise) * whole[begin : begin + fade] + rise * fresh[:fade]
        whole = torch.cat([whole[:begin], blended, fresh[fade:]])
    return whole
