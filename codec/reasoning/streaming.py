"""Decoding while the frames still arrive: structural ids in, sound out, in pieces that add up to the offline decode.

Three things keep a piece from leaving before it is final. The flow makes latents in windows, and a window needs all of
its frames. A clip's last frame may reach beyond its end, so a frame counts only once another one has followed, or the
clip is over. And the scalar decoder looks ahead (`ScalarAutoencoder.decoder_reach`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from codec.layers.windows import endless_windows
from codec.reasoning.decoder import Decoder
from codec.reasoning.flow_decoder import ClipNoise


class StreamingDecoder:
    """One clip being decoded; made by `ReasoningCodec.stream`.

    The pieces of all calls of `feed` and of `finish`, one behind the other, are the clip:

    - The latents are those of `ReasoningCodec.decode` of this clip alone, bit for bit: same windows, same noise.
    - The samples are too but for the rounding of float32, as the scalar decoder takes shorter stretches here: below
      1e-5 of full scale. A phase search (front end "stft") enlarges rounding; docs/transformers.md has measurements.
    - They are exactly the same however the frames are split over calls.

    Holds no more than one window of frames and latents, however long the clip grows.
    """

    def __init__(self, decoder: Decoder, seed: int, steps: int, guidance: float, first_window: int | None) -> None:
        """Raises ValueError where the first window is none, see `Decoder.check_first_window`."""
        decoder.check_first_window(first_window)
        flow, device = decoder.flow.config, decoder.device
        self._decoder, self._device, self._steps, self._guidance = decoder, device, steps, guidance
        self._rate = decoder.scalar.config.sample_rate
        self._before, self._after = decoder.scalar.decoder_reach  # latent frames
        self._windows = endless_windows(flow.window_frames, flow.overlap_frames, first_window)
        self._start, self._stop = next(self._windows)  # the next window, in latent frames
        self._source = ClipNoise(decoder.flow.latent_dim, seed)
        # Of what is kept, each from where it is still needed:
        self._ids = torch.empty(0, decoder.stream.codebooks, dtype=torch.int64, device=device)  # from its first frame
        self._noise = torch.empty(0, decoder.flow.latent_dim, device=device)  # from the window's first latent frame
        self._context = self._noise  # normalised latents from there
        self._latents = self._noise  # latents from `_before` frames before the sound that comes next
        self._frames = 0  # structural frames fed
        self._made = 0  # latent frames made
        self._emitted = 0  # latent frames whose sound has been returned
        self._finished = False

    @torch.no_grad()
    def feed(self, ids: Tensor) -> Tensor:
        """Take the next structural ids.

        Args:
            ids: (8, T) int64, T of any size.

        Returns:
            The sound that became final: (n,) on the CPU, n >= 0.

        Raises:
            UserError: An id is not in its codebook; none of them is taken then.
            ValueError: They are not int64 of that shape.
        """
        self._require_open()
        codebooks = self._decoder.stream.codebooks
        if ids.dtype != torch.int64 or ids.ndim != 2 or len(ids) != codebooks:
            raise ValueError(
                f"structural ids must be int64 of shape ({codebooks}, T), not {ids.dtype} of shape {tuple(ids.shape)}"
            )
        if ids.shape[1] == 0:
            return torch.empty(0)
        self._decoder.check_ids(ids)
        self._ids = torch.cat([self._ids, ids.T.to(self._device)])
        self._frames += ids.shape[1]
        certain = self._decoder.scalar.config.latent_frames(self._least_samples())
        pieces = []
        while self._stop <= certain:  # sound leaves window by window, or its rounding would depend on the calls
            self._solve(self._stop)
            pieces.append(self._sound(self._made - self._after))
        return torch.cat(pieces) if pieces else torch.empty(0)

    @torch.no_grad()
    def finish(self, num_samples: int | None = None) -> Tensor:
        """There are no more frames: the rest of the sound.

        Args:
            num_samples: Of the whole clip; None where it is unknown: then as `AudioTokenizer.from_frames` has it.

        Returns:
            (n,) on the CPU; a clip without frames has none.

        Raises:
            ValueError: A clip of so many samples has a different number of frames from those fed.
        """
        self._require_open()
        if num_samples is None:
            num_samples = self._least_samples() if self._frames else 0
        expected = self._decoder.stream.num_frames(num_samples, self._rate) if num_samples > 0 else 0
        if num_samples < 0 or expected != self._frames:
            raise ValueError(
                f"a clip of {num_samples} samples has {expected} structural frames, but got {self._frames}"
            )
        self._finished = True
        count = self._decoder.scalar.config.latent_frames(num_samples)
        if self._made < count:
            self._solve(count)
        return self._sound(count, num_samples)

    def _solve(self, stop: int) -> None:
        """Make the latents of the next window, which may stop early at a clip's end."""
        start = self._start
        drawn = self._source.draw(stop - start - len(self._noise)).to(self._device)
        self._noise = torch.cat([self._noise, drawn])
        context = torch.zeros_like(self._noise)
        given = len(self._context)
        context[:given] = self._context
        latents = self._decoder.window_latents(
            self._ids[None, : (stop - start + 1) // 2],
            self._noise[None],
            context[None],
            given,
            torch.ones(1, stop - start, dtype=torch.bool, device=self._device),
            self._steps,
            self._guidance,
        )[0]
        self._latents = torch.cat([self._latents, self._decoder.flow.denormalise(latents[given:])])
        self._made = stop
        self._start, self._stop = next(self._windows)
        moved = self._start - start
        self._ids, self._noise, self._context = self._ids[moved // 2 :], self._noise[moved:], latents[moved:]

    def _sound(self, until: int, num_samples: int | None = None) -> Tensor:
        """The sound of latent frames up to `until`; num_samples: of the clip, where that is its end."""
        if until <= self._emitted:
            return torch.empty(0)
        size = self._decoder.scalar.config.samples_per_frame
        first = max(0, self._emitted - self._before)  # the latent frame that is kept longest
        end = until * size if num_samples is None else num_samples
        lengths = None if num_samples is None else torch.tensor([end - first * size], device=self._device)
        wave = self._decoder.scalar.decode(self._latents.T[None], lengths)[0]
        piece = wave[self._emitted * size - first * size : end - first * size]
        self._emitted = until
        self._latents = self._latents[max(0, until - self._before) - first :]
        return piece.cpu()

    def _least_samples(self) -> int:
        """Samples of the shortest clip that has the frames that were fed."""
        return self._decoder.stream.least_samples(self._frames, self._rate)

    def _require_open(self) -> None:
        if self._finished:
            raise RuntimeError("this clip is finished; begin another stream")
