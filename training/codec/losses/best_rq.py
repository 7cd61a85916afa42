"""BEST-RQ: an encoder is trained on sound alone by predicting what is masked (Chiu et al. 2022, arXiv 2202.01855).

The targets come from a quantiser that is never trained: a random projection of the spectra and a random codebook. Spans
of the spectra are replaced by noise, and the encoder predicts the code of each masked frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.experts.music_encoder import STACK, MusicEncoder
from codec.io.errors import UserError
from codec.io.numbers import Count, NonNegative, ProperShare, Range, Width


@dataclass(frozen=True)
class MaskedPredictionConfig:
    """The task. Codebook sizes are those of the published music encoder, span and noise of the paper."""

    # codes of the random codebook
    codes: Annotated[int, Range(2, 2**20)] = 4096
    # dimensions of a code
    code_dim: Width = 16
    # frames that are masked together
    span: Count = 10
    # share of the frames that is masked, on average
    mask_share: ProperShare = 0.6
    # standard deviation of the noise in their place, in the scale of the normalised spectra
    noise: NonNegative = 0.1

    def __post_init__(self) -> None:
        if self.codes < 2 or self.code_dim < 1 or self.span < 1:
            raise UserError("codes of masked prediction must be at least 2, code_dim and span at least 1")
        if not 0 < self.mask_share < 1 or self.noise < 0:
            raise UserError("mask_share must lie between 0 and 1, and noise be at least 0")


class RandomProjectionQuantiser(nn.Module):
    """Vectors -> codes, by a projection and a codebook that are random and frozen (BEST-RQ §3.1).

    The projection is Xavier-initialised, the codebook normal; the nearest code is found among normalised vectors, so
    that no code is the nearest only because it is short. Vectors are standardised first, each dimension over the
    corpus (`measure`): else what all spectra have in common decides, and nearly all frames get the same few codes.
    """

    def __init__(self, dim: int, codes: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("projection", nn.init.xavier_normal_(torch.empty(dim, code_dim)))
        self.register_buffer("codebook", F.normalize(torch.randn(codes, code_dim), dim=1))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Set mean and deviation to those of (N, dim) vectors."""
        self.mean.copy_(vectors.mean(0))
        self.deviation.copy_(vectors.std(0, correction=0).clamp(min=1e-3))  # a band that is always silent stays silent

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """(..., dim) -> (...) int64."""
        with torch.autocast(vectors.device.type, enabled=False):
            # Of vectors on the unit sphere, the nearest is the one with the largest product; the projected vector's
            # own length changes nothing.
            standardised = (vectors.float() - self.mean) / self.deviation
            return (standardised @ self.projection @ self.codebook.T).argmax(-1)


@dataclass
class MaskedPredictionOutput:
    """Losses and targets of a batch."""

    # scalar: mean cross-entropy over the masked frames, in nats
    loss: Tensor
    # scalar: share of the masked frames whose code was predicted
    accuracy: Tensor
    # (masked frames,) int64
    targets: Tensor


class MaskedPrediction(nn.Module):
    """An encoder with quantiser and head. Only the encoder is kept after training."""

    def __init__(self, encoder: MusicEncoder, config: MaskedPredictionConfig) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.quantiser = RandomProjectionQuantiser(STACK * encoder.config.mel_bands, config.codes, config.code_dim)
        self.head = nn.Linear(encoder.config.dim, config.codes)

    def forward(self, waveforms: Tensor) -> MaskedPredictionOutput:
        """waveforms (B, n) without padding, a frame long or more. Masks are drawn from torch's generator on the CPU."""
        mel = self.encoder.mel(waveforms)  # (B, bands, 4 T)
        targets = self.quantiser(stacked(mel))  # (B, T)
        is_masked = draw_spans(*targets.shape, self.config.span, self.config.mask_share).to(mel.device)
        noise = self.config.noise * torch.randn(mel.shape).to(mel.device)
        masked = torch.where(is_masked.repeat_interleave(STACK, dim=1)[:, None], noise, mel)
        logits = self.head(self.encoder.states(masked)[-1][is_masked]).float()  # (masked frames, codes)
        targets = targets[is_masked]
        accuracy = (logits.argmax(1) == targets).float().mean()
        return MaskedPredictionOutput(F.cross_entropy(logits, targets), accuracy, targets)


def stacked(mel: Tensor) -> Tensor:
    """Spectra (B, bands, 4 T) -> the quantiser's input, (B, T, 4 bands): spectrum-major, band-minor."""
    return mel.unflatten(2, (-1, STACK)).permute(0, 2, 3, 1).flatten(2)


def draw_spans(clips: int, frames: int, span: int, mask_share: float) -> Tensor:
    """(clips, frames) bool: which frames are masked.

    Each clip is cut into spans from a random offset on, and each span masked with probability `mask_share`; where none
    is, the first span of every clip is. Random numbers come from torch's generator.
    """
    starts = torch.randint(span, (clips, 1))
    chosen = torch.rand(clips, -(-frames // span) + 1) < mask_share  # (clips, spans)
    spans = (torch.arange(frames) + starts) // span  # (clips, frames) number of each frame's span
    mask = chosen.gather(1, spans)
    if not mask.any():
        mask[:, :span] = True
    return mask
