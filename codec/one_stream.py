"""Tokenizers of one stream, made window by window by networks that look so far and no further.

A clip of n samples has ceil(n / samples of a frame) frames: silence fills the last one. So a clip's ids do not depend
on how much of it is filled, and any n >= 1 works.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.layers.streaming import StreamingDecoder
from codec.layers.windows import Window, context_windows
from codec.tokens import AudioTokens
from codec.windowed_tokenizer import WindowedTokenizer

Job = tuple[int, Window]  # the number of a clip, and one of its windows


class OneStreamTokenizer(WindowedTokenizer):
    """What such a tokenizer does once it is said how ids are made of a window, and sound of ids.

    Nothing in decoding takes steps, a seed or guidance.
    """

    @property
    @abstractmethod
    def samples_per_frame(self) -> int: ...

    @property
    @abstractmethod
    def encode_window(self) -> tuple[int, int]:
        """Most frames that are encoded at once, and how many of them are context on either side."""

    @property
    @abstractmethod
    def batch_frames(self) -> int:
        """Most frames of one pass on an accelerator, over all its clips."""

    @property
    def decode_window_frames(self) -> int:
        """Most frames of one pass of the decoder, besides those that it reaches over; longer sound takes several."""
        return 1500

    @property
    @abstractmethod
    def decode_reach(self) -> tuple[int, int]:
        """Frames before and after one on which its sound depends, at most."""

    @abstractmethod
    def encode_ids(self, waveforms: Tensor) -> Tensor:
        """Ids (B, T, codebooks) of waveforms (B, samples_per_frame T), each of which is a window or a whole clip."""

    @abstractmethod
    def waveforms_of(self, quantised: Tensor) -> Tensor:
        """Waveforms (B, samples_per_frame T) of quantised frames (B, T, dim)."""

    def _encode(
        self,
        lengths: Sequence[int],
        samples: Callable[[int, int, int], Tensor],
        progress: Callable[[int], None] | None,
    ) -> list[AudioTokens]:
        hop = self.samples_per_frame
        jobs = [(clip, window) for clip, n in enumerate(lengths) for window in self._windows(n)]
        ids: list[list[Tensor]] = [[] for _ in lengths]  # of each clip, the pieces (codebooks, frames) of its windows
        while jobs:
            batch, jobs = self._next_batch(jobs, 0 if self.device.type == "cpu" else self.batch_frames)
            size = batch[0][1].read_stop - batch[0][1].read_start
            pieces = [
                samples(clip, w.read_start * hop, min(lengths[clip], w.read_stop * hop)).float() for clip, w in batch
            ]
            audio = torch.stack([F.pad(piece, (0, size * hop - len(piece))) for piece in pieces]).to(self.device)
            made = self.encode_ids(audio)
            for (clip, window), frames in zip(batch, made, strict=True):
                start, stop = window.keep_start - window.read_start, window.keep_stop - window.read_start
                ids[clip].append(frames[start:stop].T.cpu())
                if progress is not None:
                    progress(min(lengths[clip], window.keep_stop * hop) - window.keep_start * hop)
        whole = [torch.cat(pieces, dim=1).contiguous() for pieces in ids]
        name = self.streams[0].name
        return [AudioTokens({name: i}, n, self.fingerprint) for i, n in zip(whole, lengths, strict=True)]

    def _windows(self, num_samples: int) -> list[Window]:
        return context_windows(-(-num_samples // self.samples_per_frame), *self.encode_window)

    @staticmethod
    def _next_batch(jobs: Sequence[Job], most_frames: int) -> tuple[list[Job], list[Job]]:
        """Windows to encode together, one at least, and the others; of each clip, in their order.

        A network sees a window as a whole, padding too: only windows of one length may go together. On the CPU, where
        batches save little, they go one by one: codes do not depend on the batch by a rounding either.
        """
        size = jobs[0][1].read_stop - jobs[0][1].read_start
        most = max(1, most_frames // size)
        batch: list[Job] = []
        others: list[Job] = []
        waiting = set()  # clips of which a window is among the others
        for clip, window in jobs:
            if window.read_stop - window.read_start == size and len(batch) < most and clip not in waiting:
                batch.append((clip, window))
            else:
                others.append((clip, window))
                waiting.add(clip)
        return batch, others

    @torch.no_grad()
    def decode(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
    ) -> list[Tensor]:
        """Waveforms (num_samples,) float32 of each clip, on the CPU.

        Raises:
            UserError: The tokens are another tokenizer's.
        """
        self._require_eval("decode")
        for clip in tokens:
            self.require_own(clip)
        name = self.streams[0].name
        return [self._waveform(clip[name])[: clip.num_samples].cpu() for clip in tokens]

    def stream(
        self, steps: int | None = None, seed: int = 0, guidance: float | None = None, first_window: int | None = None
    ) -> StreamingDecoder:
        """A decoder of one clip whose frames arrive bit by bit; sound leaves as soon as it is final."""
        self._require_eval("stream")
        return StreamingDecoder(
            self._sound, self.streams[0], self.sample_rate, self.samples_per_frame, self.decode_reach
        )

    def _waveform(self, ids: Tensor) -> Tensor:
        """(samples_per_frame T,) of ids (codebooks, T), window by window, each with all that its samples depend on."""
        context = max(self.decode_reach)
        windows = context_windows(ids.shape[1], self.decode_window_frames + 2 * context, context)
        return torch.cat([self._sound(ids, window) for window in windows])

    def _sound(self, ids: Tensor, window: Window) -> Tensor:
        """Samples of the frames that a window keeps, of ids (codebooks, T)."""
        frames = self.dequantise(self.streams[0].name, ids[:, window.read_start : window.read_stop].T[None])
        start, stop = window.keep_start - window.read_start, window.keep_stop - window.read_start
        return self.waveforms_of(frames)[0, start * self.samples_per_frame : stop * self.samples_per_frame]
