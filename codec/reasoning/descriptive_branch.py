"""The descriptive branch of ReasoningCodec: expert features -> 5 Hz tokens that say what is heard (UniAudio 2.0 §3).

Speech-text features (50 Hz) are brought to 25 Hz and merged with the music features (25 Hz). One learned query stands
after every five frames; bidirectional blocks let it gather what its neighbourhood, and the whole clip, is about; the
queries alone are kept and quantised by eight residual codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.io.errors import UserError
from codec.io.numbers import Layers, NonNegative, Range, Samples, Width
from codec.layers.masks import length_mask
from codec.layers.residual_vq import residual_quantiser
from codec.layers.rotary import rotary_table, rotate
from codec.reasoning.config import QuantiserConfig


@dataclass(frozen=True)
class DescriptiveConfig:
    """Sizes of the branch; the defaults are the published ones (Whisper-medium and the music encoder).

    downsampling: how 25 Hz becomes 5 Hz. "query": by a learned query after every five frames, as published;
        "mean_pool": by the mean of the five after the last block, without queries (an ablation)
    """

    speech_dim: Width = 1024  # channels of the speech-text features
    music_dim: Width = 1024  # channels of the music features
    dim: Width = 768
    heads: Width = 6
    rope_dims: Width = 64  # leading dimensions of each head that are rotated
    rope_base: Annotated[float, Range(1)] = 10000.0
    blocks: Layers = 5
    feed_forward_multiple: Width = 4
    downsampling: Literal["query", "mean_pool"] = "query"
    query_every: Samples = 5  # frames at 25 Hz for each query, or for each mean: 5 Hz
    layer_scale: NonNegative = 0.1  # start value of the residual scales
    levels: Layers = 8
    quantiser: QuantiserConfig = field(
        default_factory=lambda: QuantiserConfig(4096, codebook_dim=64, dead_code_threshold=0.1)
    )

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.rope_dims > self.dim // self.heads or self.rope_dims % 2:
            raise ValueError(
                f"a width of {self.dim} in {self.heads} heads with {self.rope_dims} rotated dimensions is not possible:"
                " heads must divide the width, and the rotated dimensions be even and within one head"
            )
        if self.downsampling not in ("query", "mean_pool"):
            raise ValueError(f"downsampling must be 'query' or 'mean_pool', not {self.downsampling!r}")


@dataclass
class DescriptiveOutput:
    """What the branch says about a batch of clips, T5 frames at 5 Hz each (ceil of the 25 Hz frames over five)."""

    vectors: Tensor  # (B, T5, dim) before quantisation
    quantised: Tensor  # (B, T5, dim); where quantisation was left out, what passes the quantiser's narrow place
    codes: Tensor | None  # (B, T5, 8) int64, None where quantisation was left out
    commitment: Tensor  # scalar: mean over clips' frames, summed over levels
    mask: Tensor  # (B, T5) bool: frames that belong to the clip
    frame_states: Tensor  # (B, T25, dim) the 25 Hz positions after the last block
    frame_mask: Tensor  # (B, T25) bool


class DescriptiveBranch(nn.Module):
    def __init__(self, config: DescriptiveConfig) -> None:
        super().__init__()
        self.config = config
        self.downsample = nn.Conv1d(config.speech_dim, config.speech_dim, kernel_size=2, stride=2)
        self.merge = nn.Linear(config.speech_dim + config.music_dim, config.dim)
        self.query = nn.Parameter(0.02 * torch.randn(1, config.dim)) if config.downsampling == "query" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.quantiser = residual_quantiser(config.dim, config.levels, config.quantiser)

    def forward(self, speech: Tensor, music: Tensor, frames: Tensor | None = None, quantise: bool = True):
        """Describe a batch of clips.

        speech: (B, speech_dim, 2 T25) expert features at 50 Hz, one frame less will do
        music: (B, music_dim, T25) expert features at 25 Hz
        frames: (B,) int64, 25 Hz frames of each clip, at least 1; None: every clip has as many as `music`. A clip of n
            samples has floor(25 n / 24000) + 1, which makes floor(5 n / 24000) + 1 descriptive frames
        quantise: False leaves the codebooks untouched (the first epochs of training)
        Returns DescriptiveOutput. In training mode the codebooks follow the clips' frames (padding has no say).
        """
        sequence, mask = self.with_queries(speech, music, frames)  # (B, 6 T5, dim), (B, 6 T5)
        attention_mask = None if mask.all() else mask[:, None, None, :]  # (B, 1, 1, 6 T5): keys that may be looked at
        rotation = rotary_table(sequence.shape[1], self.config.rope_dims, self.config.rope_base, sequence.device)
        for block in self.blocks:
            sequence = block(sequence, rotation, attention_mask)

        sequence, mask = self._groups(sequence), self._groups(mask)  # (B, T5, 6, dim), (B, T5, 6); 5 without queries
        query_mask = mask[:, :, 0]  # (B, T5): a group with a first frame belongs to the clip
        if self.query is None:
            vectors = (sequence * mask[..., None]).sum(2) / mask.sum(2, keepdim=True).clamp(min=1)  # (B, T5, dim)
        else:
            vectors, sequence, mask = sequence[:, :, -1], sequence[:, :, :-1], mask[:, :, :-1]
        vectors = vectors * query_mask[..., None]
        frame_states, frame_mask = sequence.flatten(1, 2), mask.flatten(1, 2)
        if not quantise:
            passed = self.quantiser.project_out(self.quantiser.project_in(vectors)) * query_mask[..., None]
            none = vectors.new_zeros(())
            return DescriptiveOutput(vectors, passed, None, none, query_mask, frame_states, frame_mask)
        if not (self.training or self.initialised):
            raise UserError("the descriptive codebooks have seen no data yet: train the branch or load its weights")
        with torch.autocast(vectors.device.type, enabled=False):  # distances to codes need their precision
            quantised, codes, losses = self.quantiser(vectors.float(), mask=query_mask)
        return DescriptiveOutput(vectors, quantised, codes, losses.sum(), query_mask, frame_states, frame_mask)

    def with_queries(self, speech: Tensor, music: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Merged 25 Hz features with the query after every five, (B, 6 T5, dim), and where they are real, (B, 6 T5).

        Where the configuration says "pooling" there are no queries, and 5 T5 positions.
        A clip's last group is filled up with frames that nobody attends to: its length need not divide by five.
        """
        every = self.config.query_every
        if frames is None:
            frames = torch.full((music.shape[0],), music.shape[2], device=music.device)
        length = int(frames.max())
        if music.shape[2] < length or speech.shape[2] < 2 * length - 1:
            raise ValueError(
                f"clips of {length} frames at 25 Hz need {length} music and {2 * length} speech-text frames, "
                f"got {music.shape[2]} and {speech.shape[2]}"
            )
        inside = length_mask(frames, length)  # (B, T25)
        music = music[:, :, :length]
        speech = F.pad(speech, (0, 2 * length - speech.shape[2]))  # cuts where there is more
        speech = self.downsample(speech * inside.repeat_interleave(2, dim=1)[:, None])  # (B, C, T25)
        merged = self.merge(torch.cat([speech, music], dim=1).transpose(1, 2))  # (B, T25, dim)
        merged = merged * inside[..., None]

        missing = -length % every
        merged = F.pad(merged, (0, 0, 0, missing)).unflatten(1, (-1, every))  # (B, T5, 5, dim)
        inside = F.pad(inside, (0, missing)).unflatten(1, (-1, every))  # (B, T5, 5)
        if self.query is None:
            return merged.flatten(1, 2), inside.flatten(1, 2)
        query = self.query.expand(*merged.shape[:2], 1, -1)
        query_inside = inside[..., :1]  # a group with a first frame belongs to the clip
        sequence = torch.cat([merged, query], dim=2).flatten(1, 2)
        return sequence, torch.cat([inside, query_inside], dim=2).flatten(1, 2)

    def dequantise(self, codes: Tensor) -> Tensor:
        """codes (B, T5, 8) int64 -> (B, T5, dim), the same as `quantised` of the clip they came from."""
        return self.quantiser.get_output_from_indices(codes)

    @property
    def initialised(self) -> bool:
        """Whether the codebooks hold codes: with k-means they take them from the first quantised training batch."""
        return all(bool(level._codebook.initted) for level in self.quantiser.layers)

    def codebook_usage(self) -> Tensor:
        """(8,) share of each level's codes that the moving averages hold alive."""
        sizes = torch.stack([level._codebook.cluster_size[0] for level in self.quantiser.layers])  # (8, codes)
        return (sizes > self.config.quantiser.dead_code_threshold).float().mean(dim=1)

    def _groups(self, sequence: Tensor) -> Tensor:
        return sequence.unflatten(1, (-1, self.config.query_every + (self.query is not None)))


class Block(nn.Module):
    """Bidirectional block without pre-norms: weight-normalised linears and scaled residuals keep it in bounds."""

    def __init__(self, config: DescriptiveConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config.dim, config.feed_forward_multiple * config.dim)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        self.feed_forward_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = x + self.attention_scale * self.attention(x, rotation, mask)
        return x + self.feed_forward_scale * self.feed_forward(x)


class Attention(nn.Module):
    """Self-attention with LayerNorm on each head's queries and keys, of which the first dimensions are rotated."""

    def __init__(self, config: DescriptiveConfig) -> None:
        super().__init__()
        self.heads = config.heads
        head_dim = config.dim // config.heads
        self.qkv = weight_norm(nn.Linear(config.dim, 3 * config.dim, bias=False))
        self.out = weight_norm(nn.Linear(config.dim, config.dim, bias=False))
        self.query_norm = nn.LayerNorm(head_dim)
        self.key_norm = nn.LayerNorm(head_dim)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        q, k = rotate(self.query_norm(q), rotation), rotate(self.key_norm(k), rotation)  # (B, H, L, D)
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """GLU with a sigmoid gate."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = weight_norm(nn.Linear(dim, 2 * hidden))
        self.down = weight_norm(nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x), dim=-1))
