"""What an expert encoder hears in a reconstruction, beside what it hears in the original.

The squared error of latents counts a consonant no more than a hiss that is as loud. An encoder that was trained to
recognise speech hears little else than what words are made of, so that a decoder that is to please it spends its
capacity, and the codebooks their bits, on that (the perceptual loss of Johnson et al., 2016; for codecs, the semantic
loss of X-Codec, Ye et al., 2024, which is on tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.experts.base import feature_frames, load_expert
from codec.experts.config import ExpertConfig
from codec.io.errors import UserError
from codec.layers.masks import length_mask
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from training.codec.audio_crops import Crop, load_batch
from training.engine.attention import plain_attention


@dataclass
class Heard:
    """The speech of a batch of clips, S of B."""

    # (S,) places in the batch
    rows: Tensor
    # (S, n) at 24 kHz, n a multiple of the samples of a latent frame
    waveforms: Tensor
    # (S,) samples of each clip
    lengths: Tensor


class PerceptualLoss:
    """Share of what varies in an expert's features of speech that a reconstruction misses.

    No module, so that the expert is part of no checkpoint.

    Args:
        config: of the expert, of which one feature is compared.
        scalar: turns latents into sound.
        device: of both.

    Raises:
        UserError: the expert cannot be read, or lets no gradient through.
    """

    def __init__(self, config: ExpertConfig, scalar: ScalarAutoencoder, device: torch.device) -> None:
        self.expert, self.scalar = load_expert(config).to(device), scalar
        self.device, self.feature = device, next(iter(self.expert.dims))
        if not self.expert.differentiable:
            raise UserError(
                f"perceptual_expert: no gradient passes an expert of kind {config.kind!r}; name one of kind 'whisper', "
                "'conformer' or 'mel'"
            )

    def hear(self, crops: Sequence[Crop]) -> Heard | None:
        """The crops that are speech; None: there is none."""
        rows = [row for row, crop in enumerate(crops) if crop.clip.kind == "speech"]
        if not rows:
            return None
        waveforms, lengths = (value.to(self.device) for value in load_batch([crops[row] for row in rows]))
        return Heard(torch.tensor(rows, device=self.device), self.scalar.pad(waveforms, lengths), lengths)

    def __call__(self, latents: Tensor, heard: Heard, counted: Tensor) -> Tensor:
        """The loss, a scalar: 0 is the original, 1 what is the same in every frame.

        Args:
            latents: (B, T25, latent_dim) of the reconstruction, as the scalar autoencoder has them.
            heard: of the batch.
            counted: (B,) bool, which clips count.
        """
        frames = -(-heard.lengths // self.scalar.config.samples_per_frame)
        latents = latents[heard.rows, : int(frames.max())].transpose(1, 2).float()
        with torch.autocast(latents.device.type, enabled=False):
            signal = self.scalar.decode_signal(latents, frames)
            waveforms = self.scalar.waveform(signal, heard.lengths, phase_of=heard.waveforms)
        rebuilt = self._features(waveforms, heard.lengths)
        with torch.no_grad():
            original = self._features(heard.waveforms, heard.lengths)  # (S, C, T)
        inside = length_mask(feature_frames(heard.lengths, self.expert.rate), original.shape[-1])[:, None]  # (S, 1, T)
        weight = (inside & counted[heard.rows, None, None]).to(original.dtype)
        mean = (original * weight).sum((0, 2), keepdim=True) / weight.sum().clamp(min=1.0)
        missed, varying = (((x - original).square() * weight).sum() for x in (rebuilt, mean))
        return missed / varying.clamp(min=1e-6)

    def _features(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        with plain_attention(self.device):
            return self.expert(waveforms, lengths)[self.feature].float()
