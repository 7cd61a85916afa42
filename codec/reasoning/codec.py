"""ReasoningCodec: waveform <-> descriptive tokens (5 Hz x 8) and structural tokens (12.5 Hz x 8) (UniAudio 2.0 §3).

Lengths of a clip of n samples at 24 kHz: T25 = floor(25 n / 24000) + 1 feature frames at 25 Hz, T5 descriptive and T12
structural frames (see codec.tokens), 2 T12 latent frames. Silence follows the audio where a frame reaches beyond its
end: features beyond T25 are zero. The flow makes the ceil(n / 960) latents that hold sound. Any n >= 1 works.
With `published_encoding` the clip begins again where it ends, as the published tokenisation has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codec.experts.base import ExpertEncoders, load_expert
from codec.io.errors import UserError
from codec.io.strict import without_defaults
from codec.layers.masks import length_mask
from codec.layers.windows import (
    BLOCK_SAMPLES,
    RepeatedClip,
    Window,
    context_windows,
    repeated_segments,
)
from codec.reasoning.config import ReasoningCodecConfig
from codec.reasoning.decoder import Decoder
from codec.reasoning.descriptive_branch import DescriptiveBranch
from codec.reasoning.flow_decoder import FlowDecoder
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.reasoning.streaming import StreamingDecoder
from codec.reasoning.structural_branch import FEATURE_FRAMES, StructuralBranch
from codec.streams import StreamSpec
from codec.tokens import SAMPLE_RATE, AudioTokens
from codec.windowed_tokenizer import WindowedTokenizer

DESCRIPTIVE_RATE, STRUCTURAL_RATE = 5.0, 12.5  # frames per second
NUM_CODEBOOKS = 8  # structural: 1 phone, 1 structure, 6 acoustic

_LATENTS_PER_BLOCK = 10  # 25 Hz frames in BLOCK_SAMPLES


@dataclass
class Features:
    """Expert features of a batch, all zero beyond each clip, cut to whole blocks of 0.4 s."""

    values: dict[str, Tensor]  # name -> (B, C, blocks * 20 or 10)
    frames: Tensor  # (B,) 25 Hz frames of each clip
    structural_mask: Tensor  # (B, blocks * 5) bool


class ReasoningCodec(WindowedTokenizer):
    """Three expert encoders, descriptive branch, structural branch, flow decoder and scalar autoencoder."""

    tokenizer_type = "reasoning_codec"
    config_class = ReasoningCodecConfig

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.experts = ExpertEncoders({expert.role: load_expert(expert) for expert in config.experts})
        # The experts' own configurations: a saved codec needs no source for weights that it holds.
        self.config = replace(config, experts=tuple(self.experts[expert.role].config for expert in config.experts))
        dims = {name: dim for expert in self.experts.values() for name, dim in expert.dims.items()}
        configured = (config.descriptive.speech_dim, config.descriptive.music_dim)
        if configured != (dims["speech_text"], dims["music_semantic"]):
            raise UserError(
                f"descriptive.speech_dim and music_dim are {configured}, but the experts give "
                f"{(dims['speech_text'], dims['music_semantic'])} channels; set them to these"
            )
        self.descriptive = DescriptiveBranch(config.descriptive)
        self.structural = StructuralBranch(config.structural, dims, config.descriptive.dim)
        self.scalar = ScalarAutoencoder(config.scalar)
        self.flow = FlowDecoder(config.flow, config.scalar.latent_hidden_dim, config.structural.dim)

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        low, high = self.config.descriptive, self.config.structural
        return (
            StreamSpec("descriptive", DESCRIPTIVE_RATE, low.levels, low.quantiser.codebook_size),
            StreamSpec("structural", STRUCTURAL_RATE, NUM_CODEBOOKS, high.quantiser.codebook_size),
        )

    @torch.no_grad()
    def dequantise(self, stream: str, ids: Tensor) -> Tensor:
        branches: dict[str, DescriptiveBranch | StructuralBranch] = {
            "descriptive": self.descriptive,
            "structural": self.structural,
        }
        return branches[stream].dequantise(ids.to(self.device))

    @property
    def device(self) -> torch.device:
        return self.structural.no_condition.device

    def identity_values(self) -> dict[str, Any]:
        values = without_defaults(self.config)
        for name in ("decode_steps", "decode_guidance", "distilled"):  # the ids mean the same however they are decoded
            values.pop(name, None)
        return values

    def card_facts(self) -> dict[str, str]:
        config = self.config
        facts = {
            f"{s.name} tokens": f"{s.rate:g} Hz x {s.codebooks} codebooks of {s.codes} codes "
            f"({s.bits_per_second:.0f} bit/s)"
            for s in self.streams
            if s.codes is not None
        }
        experts = (f"{e.role}: {e.kind} {e.source}".strip() for e in config.experts)
        decoder = f"{config.flow.layers} layers of {config.flow.heads * config.flow.head_dim} channels"
        return facts | {
            "expert encoders": ", ".join(experts),
            "flow decoder": f"{decoder}; {config.decode_steps} steps, guidance {config.decode_guidance:g}",
            "sound encoded at once": (
                "segments of 30 s of the clip repeated, as published"
                if config.published_encoding
                else f"{0.4 * config.encode_window_blocks:g} s"
            ),
        }

    @torch.no_grad()
    def extract_features(
        self, waveforms: Tensor, lengths: Tensor, blocks: Tensor | None = None, whole_frames: bool = False
    ) -> Features:
        """Features of a batch of waveforms from all experts.

        Args:
            waveforms: (B, n) float32, 24 kHz mono.
            lengths: (B,) samples of each clip.
            blocks: (B,) blocks of 0.4 s of each clip; None for whole clips, which have as many as their tokens need. A
                window of a longer clip has exactly its own number, so that nothing is counted twice where windows meet.
            whole_frames: See `ExpertEncoder.features`.
        """
        if blocks is None:
            blocks = lengths // BLOCK_SAMPLES + 1
        most = int(blocks.max())
        frames = torch.minimum(lengths * 25 // SAMPLE_RATE + 1, blocks * _LATENTS_PER_BLOCK)  # (B,)
        inside = length_mask(frames, most * _LATENTS_PER_BLOCK)  # (B, T25)
        values = {}
        for expert in self.experts.values():
            for name, value in expert.features(waveforms, lengths, whole_frames).items():
                mask = inside.repeat_interleave(FEATURE_FRAMES[name] // 2, dim=1)[:, None]  # (B, 1, T)
                values[name] = _fit(value, mask.shape[-1]) * mask
        structural = (frames + 1) // 2  # 12.5 Hz frames: T25 = floor(n / 960) + 1 makes T12 = floor(n / 1920) + 1
        return Features(values, frames, length_mask(structural, most * 5))

    def encode_descriptive(self, features: Features) -> tuple[Tensor, Tensor]:
        """Quantised descriptive frames (B, T5, dim) and their ids (B, T5, 8), two a block; ids beyond a clip are -1."""
        out = self.descriptive(features.values["speech_text"], features.values["music_semantic"], features.frames)
        missing = features.structural_mask.shape[1] * 2 // 5 - out.codes.shape[1]  # beyond all clips
        return F.pad(out.quantised, (0, 0, 0, missing)), F.pad(out.codes, (0, 0, 0, missing), value=-1)

    def _encode(
        self,
        lengths: Sequence[int],
        samples: Callable[[int, int, int], Tensor],
        progress: Callable[[int], None] | None,
    ) -> list[AudioTokens]:
        jobs = [(clip, window) for clip, n in enumerate(lengths) for window in self._windows(n)]
        repeated = [RepeatedClip(n, partial(samples, clip)) for clip, n in enumerate(lengths)]
        descriptive: list[list[Tensor]] = [[] for _ in lengths]  # of each clip, the pieces (8, frames) of its windows
        structural: list[list[Tensor]] = [[] for _ in lengths]
        on_cpu = self.device.type == "cpu"
        while jobs:
            # Matrix products round differently at another batch size; once in 80,000 ids a code would follow. On the
            # CPU, where batches save little, windows go one by one: codes do not depend on the batch.
            longest = max(window.read_stop - window.read_start for _, window in jobs)
            size = 1 if on_cpu else max(1, self.config.batch_blocks // longest)
            batch, jobs = jobs[:size], jobs[size:]
            pieces = [
                repeated[clip].segment(w)
                if self.config.published_encoding
                else samples(clip, w.read_start * BLOCK_SAMPLES, min(lengths[clip], w.read_stop * BLOCK_SAMPLES))
                for clip, w in batch
            ]
            ids = self._window_ids(pieces, [window for _, window in batch])
            for (clip, window), *made in zip(batch, *ids, strict=True):
                start, stop = window.keep_start - window.read_start, window.keep_stop - window.read_start
                descriptive[clip].append(made[0][2 * start : 2 * stop].T.cpu())
                structural[clip].append(made[1][5 * start : 5 * stop].T.cpu())
                if progress is not None:
                    done = min(lengths[clip], window.keep_stop * BLOCK_SAMPLES)
                    progress(done - min(lengths[clip], window.keep_start * BLOCK_SAMPLES))
        return [
            AudioTokens(
                {
                    name: torch.cat(pieces[clip], dim=1)[:, : self.num_frames(name, n)].contiguous()
                    for name, pieces in (("descriptive", descriptive), ("structural", structural))
                },
                n,
                self.fingerprint,
            )
            for clip, n in enumerate(lengths)
        ]

    def _windows(self, num_samples: int) -> list[Window]:
        """The windows in which a clip is encoded."""
        blocks = num_samples // BLOCK_SAMPLES + 1
        if self.config.published_encoding:
            return repeated_segments(blocks)
        return context_windows(blocks, self.config.encode_window_blocks, self.config.encode_context_blocks)

    def _window_ids(self, pieces: Sequence[Tensor], windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Descriptive (B, 2 blocks, 8) and structural ids (B, 5 blocks, 8) of whole windows, from their samples."""
        device = self.device
        audio = pad_sequence(list(pieces), batch_first=True).float().to(device)
        samples = torch.tensor([len(piece) for piece in pieces], device=device)
        blocks = torch.tensor([w.read_stop - w.read_start for w in windows], device=device)
        features = self.extract_features(audio, samples, blocks, whole_frames=self.config.published_encoding)
        quantised, descriptive = self.encode_descriptive(features)
        return descriptive, self.structural(features.values, quantised, features.structural_mask).ids

    @torch.no_grad()
    def decode(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
        first_window: int | None = None,
    ) -> list[Tensor]:
        """Waveforms from the structural ids; the descriptive ids are ignored.

        Args:
            tokens: Of each clip.
            steps: Of the flow; None: the configuration's decode_steps.
            seed: One for all clips, or one each: a clip with a seed is the same waveform in any batch.
            guidance: Of the flow, 1 is off; None: the configuration's decode_guidance.
            first_window: Latent frames (25 Hz, even) of the flow's first window, as a stream may want it
                (`codec.layers.windows.endless_windows`); None: as long as all others.

        Returns:
            (num_samples,) float32 of each clip, on the CPU.

        Raises:
            UserError: The tokens are another tokenizer's.
            ValueError: Seeds or the first window do not fit.
        """
        self._require_eval("decode")
        decoder = self.decoder
        decoder.check_first_window(first_window)
        if not tokens:
            return []
        seeds = [seed] * len(tokens) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(tokens):
            raise ValueError(f"{len(seeds)} seeds for {len(tokens)} clips")
        for clip in tokens:
            self.require_own(clip)
        lengths = [clip.num_samples for clip in tokens]
        ids = [clip["structural"] for clip in tokens]
        latents = decoder.latents(ids, lengths, seeds, *self._decode_settings(steps, guidance), first_window)
        return [decoder.waveform(row, n).cpu() for row, n in zip(latents, lengths, strict=True)]

    def stream(
        self, steps: int | None = None, seed: int = 0, guidance: float | None = None, first_window: int | None = None
    ) -> StreamingDecoder:
        """A decoder of one clip whose frames arrive bit by bit: with equal arguments it makes what `decode` makes.

        Args:
            steps: Of the flow; None: the configuration's decode_steps.
            seed: Of the starting noise.
            guidance: Of the flow, 1 is off; None: the configuration's decode_guidance.
            first_window: Latent frames of the first window; None is the default of `decode`, `low_latency_window`
                suits interactive streaming.
        """
        self._require_eval("stream")
        return StreamingDecoder(self.decoder, seed, *self._decode_settings(steps, guidance), first_window)

    def set_decoder_dtype(self, dtype: torch.dtype | None) -> Self:
        """Evaluate the flow's estimator, nearly all the work of decoding, in `dtype` from now on; returns the codec.

        None, as it is at first: bfloat16 on a GPU that has it, elsewhere the type of the weights. A copy of the
        estimator is used; the weights, ids and fingerprint stay. Path, scalar decoder and encoding keep their type.
        """
        self.flow.decode_dtype = dtype
        return self

    @property
    def decoder(self) -> Decoder:
        """The parts that decode."""
        return Decoder(self.streams[-1], self.structural, self.flow, self.scalar)

    @property
    def low_latency_window(self) -> int:
        """First window for interactive streaming, in latent frames."""
        return self.decoder.low_latency_window

    def _decode_settings(self, steps: int | None, guidance: float | None) -> tuple[int, float]:
        steps = self.config.decode_steps if steps is None else steps
        return steps, self.config.decode_guidance if guidance is None else guidance


def _fit(value: Tensor, length: int) -> Tensor:
    """Cut or zero-fill the last axis to `length`."""
    return F.pad(value, (0, length - value.shape[-1]))
