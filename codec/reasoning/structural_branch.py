"""Structural branch: the tokens that the waveform is decoded from (ReasoningCodec, reconstruction branch).

Three parallel branches at 12.5 Hz, each fused from expert features, modulated by the descriptive tokens (FiLM) and
quantised: phone (1 codebook), structure (1), acoustic (6). The sum of the three conditions the flow decoder at 25 Hz.
Rates: speech-text and phone features 50 Hz, music features and latents 25 Hz, structural frames 12.5 Hz, descriptive
frames 5 Hz.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.residual_vq import residual_quantiser
from codec.reasoning.config import StructuralConfig

BRANCHES = ("phone", "structure", "acoustic")
LEVELS = {"phone": 1, "structure": 1, "acoustic": 6}  # codebooks of each branch, in the order of the ids
FEATURE_FRAMES = {"speech_text": 4, "phone": 4, "music_acoustic": 2, "music_semantic": 2}  # per structural frame


@dataclass
class StructuralOutput:
    """Structural frames of a batch of clips."""

    ids: Tensor  # (B, T12, 8) int64, -1 beyond a clip
    quantised: Tensor  # (B, T12, dim), the sum of the branches
    phone: Tensor  # (B, T12, dim), the quantised phone branch alone
    commitment: Tensor  # scalar, zero outside training


class FiLM(nn.Module):
    """y = gamma x + beta, both from the descriptive tokens: gamma = 1 + scale * tanh(.), and it starts as identity."""

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.scale = scale

    def forward(self, x: Tensor, condition: Tensor, keep: Tensor | None) -> Tensor:
        """x, condition (B, T, dim); keep (B, 1, 1) float, 0 for clips that are not modulated, or None."""
        gamma, beta = self.linear(condition).chunk(2, dim=-1)
        gamma = self.scale * torch.tanh(gamma)
        if keep is not None:
            gamma, beta = gamma * keep, beta * keep
        return (1.0 + gamma) * x + beta


class StructuralBranch(nn.Module):
    """Expert features and quantised descriptive frames -> structural ids, and ids -> conditioning of the flow decoder.

    Args:
        config: sizes, see StructuralConfig
        feature_dims: channels of each expert feature: speech_text, phone, music_acoustic, music_semantic
        descriptive_dim: width of the quantised descriptive frames
    """

    def __init__(self, config: StructuralConfig, feature_dims: Mapping[str, int], descriptive_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.downsample = nn.ModuleDict(
            {name: nn.Conv1d(feature_dims[name], feature_dims[name], k, stride=k) for name, k in FEATURE_FRAMES.items()}
        )
        self.fusion = nn.ModuleDict(
            {
                "phone": nn.Linear(feature_dims["phone"], dim),
                "structure": nn.Linear(feature_dims["music_semantic"], dim),
                "acoustic": nn.Linear(feature_dims["music_acoustic"] + feature_dims["speech_text"], dim),
            }
        )
        self.descriptive_adaptor = nn.Linear(descriptive_dim, dim)
        self.film = nn.ModuleDict({name: FiLM(dim, config.film_scale) for name in BRANCHES})
        self.quantiser = nn.ModuleDict(
            {name: residual_quantiser(dim, LEVELS[name], config.quantiser) for name in BRANCHES}
        )
        self.condition_projection = nn.Linear(dim, config.conditions * dim)
        self.no_condition = nn.Parameter(torch.randn(dim))  # for frames beyond a clip that share its window
        self.phone_decoder = FeatureDecoder(dim, feature_dims["phone"], strides=(2, 2))

    def fuse(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs of the three branches, each (B, T12, dim), before FiLM.

        Args:
            features: Name -> (B, C, T12 * FEATURE_FRAMES[name]), zero beyond each clip.

        Raises:
            ValueError: On other lengths.
        """
        frames = {name: features[name].shape[-1] / k for name, k in FEATURE_FRAMES.items()}
        if len(set(frames.values())) != 1 or not next(iter(frames.values())).is_integer():
            raise ValueError(f"expert features must cover the same whole structural frames, not {frames}")
        down = {name: self.downsample[name](features[name]).transpose(1, 2) for name in FEATURE_FRAMES}  # (B, T12, C)
        return {
            "phone": self.fusion["phone"](down["phone"]),
            "structure": self.fusion["structure"](down["music_semantic"]),
            "acoustic": self.fusion["acoustic"](torch.cat([down["music_acoustic"], down["speech_text"]], dim=-1)),
        }

    def modulate(self, fused: Mapping[str, Tensor], descriptive: Tensor | None) -> dict[str, Tensor]:
        """FiLM of the three branches by quantised descriptive frames (B, T5, dim); None leaves them as they are.

        In training each branch of each clip is left unmodulated with probability `film_drop`. Never outside training:
        the same audio must give the same codes.
        """
        if descriptive is None:
            return dict(fused)
        length = fused["phone"].shape[1]
        # 5 Hz -> 12.5 Hz: structural frame i lies in descriptive frame floor(i / 2.5)
        index = (torch.arange(length, device=descriptive.device) * 2).div(5, rounding_mode="floor")
        condition = self.descriptive_adaptor(descriptive)[:, index]  # (B, T12, dim)
        out = {}
        for name in BRANCHES:
            keep = None
            if self.training and self.config.film_drop > 0:
                keep = (torch.rand(len(condition), 1, 1, device=condition.device) >= self.config.film_drop).float()
            out[name] = self.film[name](fused[name], condition, keep)
        return out

    def forward(
        self,
        features: Mapping[str, Tensor],
        descriptive: Tensor | None,
        mask: Tensor,
        codebooks: Tensor | None = None,
    ) -> StructuralOutput:
        """Quantise a batch of clips.

        Frames beyond a clip touch neither codebooks nor commitment loss; their ids are -1 and their vectors zero.

        Args:
            features: As for `fuse`.
            descriptive: (B, T5, dim) or None.
            mask: (B, T12) bool, False beyond each clip.
            codebooks: (B,) from 1 to 8, how many of each clip are in its quantised vectors; None: all.
        """
        modulated = self.modulate(self.fuse(features), descriptive)
        tables = None if codebooks is None else self._tables()  # as they are now: codebooks follow every batch
        ids, quantised, commitment = [], {}, torch.zeros((), device=mask.device)
        for name in BRANCHES:
            quantised[name], level_ids, loss = self.quantiser[name](modulated[name], mask=mask)
            ids.append(level_ids)
            commitment = commitment + loss.sum()
        all_ids, total = torch.cat(ids, dim=-1), sum(quantised.values())
        if codebooks is not None and tables is not None:
            left_out = (torch.arange(all_ids.shape[-1], device=mask.device) >= codebooks[:, None, None]) & mask[
                ..., None
            ]
            total = total - self._sum_of(all_ids, left_out, tables)
        return StructuralOutput(
            ids=all_ids,
            quantised=total,
            phone=quantised["phone"],
            commitment=commitment,
        )

    def _tables(self) -> list[Tensor]:
        """The codes (K, codebook_dim) of every codebook, in the order of the ids; a copy."""
        branches: list[Any] = [self.quantiser[name] for name in BRANCHES]
        return [level._codebook.embed[0].clone() for branch in branches for level in branch.layers]

    def _sum_of(self, ids: Tensor, chosen: Tensor, tables: list[Tensor]) -> Tensor:
        """What the chosen (B, T12, 8) of some ids add to their quantised vectors: (B, T12, dim)."""
        codes = [table[ids[..., i].clamp(min=0)] * chosen[..., i, None] for i, table in enumerate(tables)]
        total, first = torch.zeros((), device=ids.device), 0
        for name in BRANCHES:
            quantiser: Any = self.quantiser[name]
            of_branch = torch.stack(codes[first : first + LEVELS[name]]).sum(0)
            total, first = total + F.linear(of_branch, quantiser.project_out.weight), first + LEVELS[name]
        return total

    def dequantise(self, ids: Tensor) -> Tensor:
        """ids (B, T12, 8) -> sum of the branches (B, T12, dim). Negative ids (beyond a clip) give zero vectors."""
        keep = (ids[..., :1] >= 0).to(self.condition_projection.weight.dtype)
        parts = ids.clamp(min=0).split([LEVELS[name] for name in BRANCHES], dim=-1)
        vectors = [
            self.quantiser[name].get_output_from_indices(part)  # type: ignore[operator]  # a ResidualQuantiser
            for name, part in zip(BRANCHES, parts, strict=True)
        ]
        return sum(vectors) * keep

    def condition(self, quantised: Tensor, mask: Tensor | None = None) -> Tensor:
        """Conditioning of the flow decoder at 25 Hz: (B, T12, dim) -> (B, 2 * T12, dim).

        mask (B, 2 * T12) bool: where False, the learned 'no condition' vector is used instead.
        """
        mu = self.condition_projection(quantised)
        mu = mu.repeat_interleave(2, dim=1) if self.config.conditions == 1 else mu.unflatten(-1, (2, -1)).flatten(1, 2)
        return mu if mask is None else torch.where(mask[:, :, None], mu, self.no_condition.to(mu.dtype))

    def phone_loss(self, phone: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the phone expert's features as decoded from the phone codes (a scalar).

        phone (B, T12, dim) from `forward`, features (B, C, 4 * T12), mask (B, T12) bool.
        """
        weight = mask.repeat_interleave(4, dim=1)[:, None].to(features.dtype)  # (B, 1, T50)
        error = (self.phone_decoder(phone.transpose(1, 2)) - features).square() * weight
        return error.sum() / (weight.sum() * features.shape[1]).clamp(min=1.0)


class ResidualUnit(nn.Module):
    """x + conv1(ELU(conv3(ELU(x)))), without biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel_size=3, padding=1, bias=False)
        self.pointwise = nn.Conv1d(dim, dim, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.elu(self.conv(F.elu(x))))


class FeatureUpsampling(nn.Module):
    """A transposed convolution by `stride`, then two residual units."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        padding = (stride + 1) // 2
        self.upsample = nn.ConvTranspose1d(
            dim, dim, kernel_size=2 * stride, stride=stride, padding=padding, output_padding=stride % 2
        )
        self.residual_units = nn.ModuleList(ResidualUnit(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        for unit in self.residual_units:
            x = unit(x)
        return x


class FeatureDecoder(nn.Module):
    """Auxiliary decoder of training: frames (B, dim_in, T) -> expert features (B, dim_out, T * prod(strides))."""

    def __init__(self, dim_in: int, dim_out: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.conv_in = nn.Conv1d(dim_in, dim_out, kernel_size=3, padding=1, bias=False)
        self.blocks = nn.ModuleList(FeatureUpsampling(dim_out, stride) for stride in strides)
        self.conv_out = nn.Conv1d(dim_out, dim_out, kernel_size=3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        return self.conv_out(x)
