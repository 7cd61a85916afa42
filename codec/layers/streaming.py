"""Decoding one stream while its frames still arrive: codes in, sound out, in pieces that add up to the whole decode."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from codec.layers.windows import Window
from codec.streams import StreamSpec
from codec.tokens import AudioTokens


class StreamingDecoder:
    """One clip being decoded; made by `OneStreamTokenizer.stream`.

    A frame's sound is final once the frames that the decoder looks ahead have followed. The pieces differ from the
    whole decode by the rounding of float32 at most. Holds no more frames than the decoder reaches over, however long
    the clip grows.
    """

    def __init__(
        self,
        decode: Callable[[Tensor, Window], Tensor],
        spec: StreamSpec,
        sample_rate: int,
        hop: int,
        reach: tuple[int, int],
    ) -> None:
        """A decoder of nothing yet.

        Args:
            decode: Makes of ids (codebooks, T) and a window of these T frames the sound of those that are kept, (n,).
            spec: The stream.
            sample_rate: Of the sound.
            hop: Samples of a frame.
            reach: Frames before and after one on which its sound depends.
        """
        self._decode, self._spec, self._rate, self._hop = decode, spec, sample_rate, hop
        self._before, self._after = reach
        self._ids = torch.empty(spec.codebooks, 0, dtype=torch.int64)  # from `_first` on
        self._first = 0  # frame of the clip, the first that is held
        self._emitted = 0  # frames whose sound has been returned
        self._finished = False

    @torch.no_grad()
    def feed(self, ids: Tensor) -> Tensor:
        """Take the next ids (codebooks, T) int64, T of any size.

        Returns:
            The sound that became final: (n,) on the CPU, n >= 0.

        Raises:
            UserError: An id is not in its codebook; none of them is taken then.
            ValueError: They are not int64 of that shape.
        """
        self._require_open()
        if ids.ndim == 2 and ids.shape[1] == 0:
            return torch.empty(0)
        # As a clip of its own: its form and its ids are checked.
        AudioTokens({self._spec.name: ids}, 1, "").require_streams([self._spec], "the frames")
        self._ids = torch.cat([self._ids, ids.cpu()], dim=1)
        return self._sound(self._first + self._ids.shape[1] - self._after)

    @torch.no_grad()
    def finish(self, num_samples: int | None = None) -> Tensor:
        """There are no more frames: the rest of the sound, (n,) on the CPU; a clip without frames has none.

        Args:
            num_samples: Of the whole clip; None where it is unknown: then as `AudioTokenizer.from_frames` has it.

        Raises:
            ValueError: A clip of so many samples has another number of frames than were fed.
        """
        self._require_open()
        frames = self._first + self._ids.shape[1]
        if num_samples is None:
            num_samples = self._spec.least_samples(frames, self._rate) if frames else 0
        expected = self._spec.num_frames(num_samples, self._rate) if num_samples > 0 else 0
        if expected != frames:
            raise ValueError(f"a clip of {num_samples} samples has {expected} frames, but got {frames}")
        self._finished, before = True, self._emitted * self._hop
        return self._sound(frames)[: num_samples - before]

    def _sound(self, until: int) -> Tensor:
        """Of the frames from the last that was returned up to `until`."""
        if until <= self._emitted:
            return torch.empty(0)
        window = Window(0, self._ids.shape[1], self._emitted - self._first, until - self._first)
        piece = self._decode(self._ids, window)
        self._emitted = until
        first = max(self._first, until - self._before)
        self._ids, self._first = self._ids[:, first - self._first :], first
        return piece.cpu()

    def _require_open(self) -> None:
        if self._finished:
            raise RuntimeError("this clip is finished; begin another stream")
