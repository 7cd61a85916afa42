"""The decoder of ReasoningCodec: structural ids -> scalar latents -> waveform, of whole clips or window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.layers.masks import length_mask
from codec.layers.windows import cross_faded, overlapping_windows
from codec.reasoning.flow_decoder import FlowDecoder, clip_noise
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.reasoning.structural_branch import StructuralBranch
from codec.streams import StreamSpec

_SCALAR_WINDOW = 1000  # latent frames (40 s) that the scalar decoder turns into sound at once
_SCALAR_OVERLAP = 128  # of them shared by two windows: twice what its convolutions reach
_CROSS_FADE = 16  # latent frames over which two such windows are blended
_LOW_LATENCY_FRAMES = 24  # latent frames of sound that the first window of an interactive stream gives


@dataclass(frozen=True)
class Decoder:
    """The modules of a ReasoningCodec that decode. It owns none of them: their weights stay those of the codec."""

    stream: StreamSpec  # of the ids
    # ids -> what conditions the flow
    structural: StructuralBranch
    # condition -> scalar latents
    flow: FlowDecoder
    # scalar latents -> sound
    scalar: ScalarAutoencoder

    @property
    def device(self) -> torch.device:
        """Where ids are decoded."""
        return self.structural.no_condition.device

    @property
    def low_latency_window(self) -> int:
        """First window for interactive streaming: a second of sound and what the scalar decoder looks ahead."""
        frames = self.scalar.decoder_reach[1] + _LOW_LATENCY_FRAMES
        return min(frames + frames % 2, self.flow.config.window_frames)

    def check_first_window(self, frames: int | None) -> None:
        """Raise ValueError where a first window is no even number of latent frames up to the length of all others."""
        longest = self.flow.config.window_frames
        if frames is not None and (frames % 2 or not 0 < frames <= longest):
            raise ValueError(f"first_window must be an even number of latent frames up to {longest}, not {frames}")

    @torch.no_grad()
    def window_latents(
        self,
        ids: Tensor,
        noise: Tensor,
        context: Tensor,
        context_frames: int,
        mask: Tensor,
        steps: int,
        guidance: float,
    ) -> Tensor:
        """Normalised latents of one window of each of B clips.

        Args:
            ids: (B, ceil(T / 2), 8), -1 beyond a clip.
            noise: (B, T, latent_dim).
            context: (B, T, latent_dim), whose first `context_frames` frames are the latents of the window before.
            context_frames: Number of latent frames that are given.
            mask: (B, T) bool, False beyond a clip.
            steps: Of the flow.
            guidance: Of the flow; 1 is off.

        Returns:
            (B, T, latent_dim).
        """
        mu = self.structural.condition(self.structural.dequantise(ids))[:, : noise.shape[1]]
        return self.flow.solve(
            noise, mu, mask, context=context, context_frames=context_frames, steps=steps, guidance=guidance
        )

    @torch.no_grad()
    def latents(
        self,
        clips: Sequence[Tensor],
        num_samples: Sequence[int],
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        first_window: int | None = None,
    ) -> Tensor:
        """Latents of whole clips.

        Long clips take several windows. A window begins with the last latents of the one before as context, so that it
        continues them; windows are counted in frames and drop none.

        Args:
            clips: Structural ids (8, T12) int64 of each clip.
            num_samples: Length of each clip.
            seeds: Of the starting noise of each clip.
            steps: Of the flow.
            guidance: Of the flow; 1 is off.
            first_window: Latent frames of the first window; None: as many as of all others.

        Returns:
            (B, 2 T12, latent_dim); those beyond the ceil(n / 960) frames of a clip mean nothing.
        """
        device, latent_dim, config = self.device, self.flow.latent_dim, self.flow.config
        most = 2 * max(ids.shape[1] for ids in clips)
        noise = torch.zeros(len(clips), most, latent_dim)
        ids = torch.full((len(clips), most // 2, clips[0].shape[0]), -1)
        for row, (clip, seed) in enumerate(zip(clips, seeds, strict=True)):
            frames = clip.shape[1]
            noise[row, : 2 * frames] = clip_noise(2 * frames, latent_dim, seed)
            ids[row, :frames] = clip.T
        noise, ids = noise.to(device), ids.to(device)
        # Only latents that hold sound are made; the last structural frame may reach beyond the clip's end.
        count = torch.tensor([self.scalar.config.latent_frames(n) for n in num_samples], device=device)
        latents = torch.zeros_like(noise)
        made = 0
        windows = overlapping_windows(int(count.max()), config.window_frames, config.overlap_frames, first_window)
        for start, stop in windows:
            given, made = made - start, stop
            rows = (count > start + given).nonzero()[:, 0]  # clips that have something new here
            stop = min(stop, int(count[rows].max()))
            latents[rows, start:stop] = self.window_latents(
                ids[rows, start // 2 : (stop + 1) // 2],
                noise[rows, start:stop],
                latents[rows, start:stop],
                given,
                length_mask(count[rows] - start, stop - start),
                steps,
                guidance,
            )
        return self.flow.denormalise(latents)

    @torch.no_grad()
    def waveform(self, latents: Tensor, num_samples: int) -> Tensor:
        """Latents (T25, latent_dim) of one clip -> (num_samples,); a long one in windows that are blended.

        Clip by clip, not batched: rounding has made the latents exact, so the samples do not depend on the batch even
        where a phase search would enlarge the last bit of a difference.
        """
        size = self.scalar.config.samples_per_frame
        pieces = []
        for start, stop in overlapping_windows(-(-num_samples // size), _SCALAR_WINDOW, _SCALAR_OVERLAP):
            length = min(num_samples, stop * size) - start * size
            lengths = torch.tensor([length], device=latents.device)
            pieces.append((start * size, self.scalar.decode(latents[start:stop].T[None], lengths)[0]))
        return cross_faded(pieces, _CROSS_FADE * size)[:num_samples]

    def check_ids(self, ids: Tensor) -> None:
        """Raise UserError where one of some ids, at least one, is not in its codebook."""
        codes = self.stream.codes
        if ids.min() < 0 or (codes is not None and ids.max() >= codes):
            raise UserError(
                f"{self.stream.name} ids must lie in [0, {codes}), found {int(ids.min())} to "
                f"{int(ids.max())}; decode them with the tokenizer that made them"
            )
