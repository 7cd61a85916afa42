"""ReasoningCodec: waveform <-> descriptive tokens (5 Hz x 8) and structural tokens (12.5 Hz x 8) (UniAudio 2.0 §3).

Lengths of a clip of n samples at 24 kHz: T25 = floor(25 n / 24000) + 1 feature frames at 25 Hz, T5 descriptive and T12
structural frames (see codec.tokens), 2 T12 latent frames. Silence follows the audio where a frame reaches beyond its
end: features beyond T25 are zero. The flow makes the ceil(n / 960) latents that hold sound. Any n >= 1 works.
With `published_encoding` the clip begins again where it ends, as the published tokenisation has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import log2
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from codec.experts.base import load_expert
from codec.io.errors import UserError
from codec.io.strict import parse, without_defaults
from codec.reasoning.config import ReasoningCodecConfig
from codec.reasoning.descriptive_branch import DescriptiveBranch
from codec.reasoning.flow_decoder import FlowDecoder, clip_noise
from codec.reasoning.scalar_autoencoder import ScalarAutoencoder
from codec.reasoning.streaming import StreamingDecoder
from codec.reasoning.structural_branch import FEATURE_FRAMES, StructuralBranch
from codec.reasoning.windows import (
    BLOCK_SAMPLES,
    RepeatedClip,
    Window,
    context_windows,
    cross_faded,
    overlapping_windows,
    repeated_segments,
)
from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer, checked_lengths
from codec.tokens import SAMPLE_RATE, AudioTokens

DESCRIPTIVE_RATE, STRUCTURAL_RATE = 5.0, 12.5  # frames per second
NUM_CODEBOOKS = 8  # structural: 1 phone, 1 structure, 6 acoustic

_LATENTS_PER_BLOCK = 10  # 25 Hz frames in BLOCK_SAMPLES
_SCALAR_WINDOW = 1000  # latent frames (40 s) that the scalar decoder turns into sound at once
_SCALAR_OVERLAP = 128  # of them shared by two windows: twice what its convolutions reach
_CROSS_FADE = 16  # latent frames over which two such windows are blended
_EARLY_FRAMES = 24  # latent frames of sound that the first window of an early stream gives


@dataclass
class Features:
    """Expert features of a batch, all zero beyond each clip, cut to whole blocks of 0.4 s.

    values: name -> (B, C, blocks * 20 or 10); frames: (B,) 25 Hz frames of each clip; structural_mask (B, blocks * 5)
    """

    values: dict[str, Tensor]
    frames: Tensor
    structural_mask: Tensor


class ReasoningCodec(AudioTokenizer):
    """Three expert encoders, descriptive branch, structural branch, flow decoder and scalar autoencoder."""

    tokenizer_type = "reasoning_codec"

    def __init__(self, config: ReasoningCodecConfig) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({expert.role: load_expert(expert) for expert in config.experts})
        # As the experts themselves say it: what is saved need not look for a folder whose weights it holds.
        self.config = replace(config, experts=tuple(self.experts[expert.role].config for expert in config.experts))
        dims = {name: dim for expert in self.experts.values() for name, dim in expert.dims.items()}
        wanted = (config.descriptive.speech_dim, config.descriptive.music_dim)
        if wanted != (dims["speech_text"], dims["music_semantic"]):
            raise UserError(
                f"descriptive.speech_dim and music_dim are {wanted}, but the experts give "
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
        branch = {"descriptive": self.descriptive, "structural": self.structural}[stream]
        return branch.dequantise(ids.to(self.device))

    @property
    def device(self) -> torch.device:
        return self.structural.no_condition.device

    def config_values(self) -> dict[str, Any]:
        return asdict(self.config)

    def identity_values(self) -> dict[str, Any]:
        values = without_defaults(self.config)
        for name in ("decode_steps", "decode_guidance"):  # the ids mean the same however they are decoded
            values.pop(name, None)
        return values

    def card_facts(self) -> dict[str, str]:
        config = self.config
        facts = {
            f"{s.name} tokens": f"{s.rate:g} Hz x {s.codebooks} codebooks of {s.codes} codes "
            f"({s.rate * s.codebooks * log2(s.codes):.0f} bit/s)"
            for s in self.streams
        }
        heard = (f"{e.role}: {e.kind} {e.source}".strip() for e in config.experts)
        decoder = f"{config.flow.layers} layers of {config.flow.heads * config.flow.head_dim} channels"
        return facts | {
            "expert encoders": ", ".join(heard),
            "flow decoder": f"{decoder}; {config.decode_steps} steps, guidance {config.decode_guidance:g}",
            "sound encoded at once": (
                "segments of 30 s of the clip repeated, as published"
                if config.published_encoding
                else f"{0.4 * config.encode_window_blocks:g} s"
            ),
        }

    @classmethod
    def from_config_values(cls, values: dict[str, Any], source: str) -> Self:
        return cls(parse(ReasoningCodecConfig, values, source))

    @torch.no_grad()
    def extract_features(
        self, waveforms: Tensor, lengths: Tensor, blocks: Tensor | None = None, whole_frames: bool = False
    ) -> Features:
        """What the experts hear in waveforms (B, n) of `lengths` (B,) samples.

        blocks: (B,) blocks of 0.4 s of each clip; None for whole clips, which have as many as their tokens need. A
        window of a longer clip has exactly its own number, so that nothing is counted twice where windows meet.
        whole_frames: see `ExpertEncoder.features`
        """
        if blocks is None:
            blocks = lengths // BLOCK_SAMPLES + 1
        most = int(blocks.max())
        frames = torch.minimum(lengths * 25 // SAMPLE_RATE + 1, blocks * _LATENTS_PER_BLOCK)  # (B,)
        inside = torch.arange(most * _LATENTS_PER_BLOCK, device=waveforms.device) < frames[:, None]  # (B, T25)
        values = {}
        for expert in self.experts.values():
            for name, value in expert.features(waveforms, lengths, whole_frames).items():
                mask = inside.repeat_interleave(FEATURE_FRAMES[name] // 2, dim=1)[:, None]  # (B, 1, T)
                values[name] = _fit(value, mask.shape[-1]) * mask
        structural = (frames + 1) // 2  # 12.5 Hz frames: T25 = floor(n / 960) + 1 makes T12 = floor(n / 1920) + 1
        structural_mask = torch.arange(most * 5, device=waveforms.device) < structural[:, None]
        return Features(values, frames, structural_mask)

    def encode_descriptive(self, features: Features) -> tuple[Tensor, Tensor]:
        """Quantised descriptive frames (B, T5, dim) and their ids (B, T5, 8), two a block; ids beyond a clip are -1."""
        out = self.descriptive(features.values["speech_text"], features.values["music_semantic"], features.frames)
        missing = features.structural_mask.shape[1] * 2 // 5 - out.codes.shape[1]  # beyond all clips
        return F.pad(out.quantised, (0, 0, 0, missing)), F.pad(out.codes, (0, 0, 0, missing), value=-1)

    @torch.no_grad()
    def encode(
        self, waveforms: Tensor, lengths: Tensor | None = None, progress: Callable[[int], None] | None = None
    ) -> list[AudioTokens]:
        self._require_eval("encode")
        counts = checked_lengths(waveforms, lengths, self.sample_rate)
        return self._encode(counts, lambda clip, start, stop: waveforms[clip, start:stop], progress)

    @torch.no_grad()
    def encode_blocks(
        self, blocks: Iterable[Tensor], num_samples: int, progress: Callable[[int], None] | None = None
    ) -> AudioTokens:
        self._require_eval("encode_blocks")
        if num_samples < 1:
            raise UserError("there is nothing to encode: the clip has no samples")
        held = _Forwards(blocks)
        made = self._encode([num_samples], lambda _, start, stop: held.samples(start, stop), progress)[0]
        if held.has_more():
            raise ValueError(f"there are more than the {num_samples} samples that were announced")
        return made

    def _encode(
        self,
        lengths: Sequence[int],
        samples: Callable[[int, int, int], Tensor],
        progress: Callable[[int], None] | None,
    ) -> list[AudioTokens]:
        """Tokens of clips of `lengths` samples; samples(clip, start, stop) gives them, a clip's in ascending order."""
        jobs = [(clip, window) for clip, n in enumerate(lengths) for window in self._windows(n)]
        repeated = [RepeatedClip(n, partial(samples, clip)) for clip, n in enumerate(lengths)]
        descriptive: list[list[Tensor]] = [[] for _ in lengths]  # of each clip, the pieces (8, frames) of its windows
        structural: list[list[Tensor]] = [[] for _ in lengths]
        on_cpu = self.device.type == "cpu"
        while jobs:
            # Matrix products round differently at another batch size; once in 80,000 ids a code would follow. On the
            # CPU, where batches save little, windows go one by one: codes are exactly those of the clip alone.
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
        solver: str = "euler",
        first_window: int | None = None,
    ) -> list[Tensor]:
        """Waveforms from the structural ids; the descriptive ids are ignored.

        steps, guidance: None takes the configuration's decode_steps and decode_guidance
        solver: "euler" or "midpoint" (two evaluations a step)
        first_window: latent frames (25 Hz, even) of the flow's first window, as a stream may want it
            (`codec.windows.endless_windows`); None: as long as all others
        """
        self._require_eval("decode")
        self._check_first_window(first_window)
        if not tokens:
            return []
        seeds = [seed] * len(tokens) if isinstance(seed, int) else list(seed)
        if len(seeds) != len(tokens):
            raise ValueError(f"{len(seeds)} seeds for {len(tokens)} clips")
        for clip in tokens:
            self.require_own(clip)
        steps, guidance = self._decode_settings(steps, guidance)
        latents = self._latents(tokens, seeds, steps, guidance, solver, first_window)
        return [self._waveform(row, clip.num_samples).cpu() for row, clip in zip(latents, tokens, strict=True)]

    def stream(
        self,
        steps: int | None = None,
        seed: int = 0,
        guidance: float | None = None,
        solver: str = "euler",
        first_window: int | None = None,
    ) -> StreamingDecoder:
        """A decoder of one clip whose frames come bit by bit: with equal arguments it makes what `decode` makes.

        first_window: None is the default of `decode`; `low_latency_window` gives sound as soon as that is sensible
        """
        self._require_eval("stream")
        self._check_first_window(first_window)
        return StreamingDecoder(self, seed, *self._decode_settings(steps, guidance), solver, first_window)

    def set_decoder_dtype(self, dtype: torch.dtype) -> Self:
        """Evaluate the flow's estimator, nearly all the work of decoding, in `dtype` from now on; returns the codec.

        For decoding alone: the ids and the fingerprint stay those of the weights before, so do it last, after `to`, and
        neither save nor train the codec then. Path, scalar decoder and encoding keep their type.
        """
        fingerprint = self.fingerprint
        self.flow.estimator.to(dtype)
        self._fingerprint = fingerprint
        return self

    @property
    def low_latency_window(self) -> int:
        """First window for somebody who waits: a second of sound and what the scalar decoder looks ahead."""
        frames = self.scalar.decoder_reach[1] + _EARLY_FRAMES
        return min(frames + frames % 2, self.config.flow.window_frames)

    def _decode_settings(self, steps: int | None, guidance: float | None) -> tuple[int, float]:
        steps = self.config.decode_steps if steps is None else steps
        return steps, self.config.decode_guidance if guidance is None else guidance

    def _check_first_window(self, frames: int | None) -> None:
        longest = self.config.flow.window_frames
        if frames is not None and (frames % 2 or not 0 < frames <= longest):
            raise ValueError(f"first_window must be an even number of latent frames up to {longest}, not {frames}")

    @torch.no_grad()
    def window_latents(
        self, ids: Tensor, noise: Tensor, context: Tensor, context_frames: int, mask: Tensor, **solving: Any
    ) -> Tensor:
        """Normalised latents (B, T, latent_dim) of one window of each of B clips.

        ids: (B, ceil(T / 2), 8), -1 beyond a clip; noise (B, T, latent_dim); mask (B, T), False beyond a clip
        context: latents (B, T, latent_dim) whose first `context_frames` frames are given by the window before
        solving: steps, guidance and solver of `FlowDecoder.solve`
        """
        mu = self.structural.condition(self.structural.dequantise(ids))[:, : noise.shape[1]]
        return self.flow.solve(noise, mu, mask, context=context, context_frames=context_frames, **solving)

    def _latents(
        self,
        tokens: Sequence[AudioTokens],
        seeds: Sequence[int],
        steps: int,
        guidance: float,
        solver: str,
        first_window: int | None = None,
    ) -> Tensor:
        """Latents (B, T25, latent_dim) of all clips.

        Long clips take several windows. A window begins with the last latents of the one before as context, so that it
        continues what was heard; windows are counted in frames and drop none.
        """
        device = self.device
        latent_dim, flow = self.flow.latent_dim, self.config.flow
        most = 2 * max(clip["structural"].shape[1] for clip in tokens)
        noise = torch.zeros(len(tokens), most, latent_dim)
        ids = torch.full((len(tokens), most // 2, 8), -1)
        for row, (clip, clip_seed) in enumerate(zip(tokens, seeds, strict=True)):
            frames = clip["structural"].shape[1]
            noise[row, : 2 * frames] = clip_noise(2 * frames, latent_dim, clip_seed)
            ids[row, :frames] = clip["structural"].T
        noise, ids = noise.to(device), ids.to(device)
        # Only latents that hold sound are made; the last structural frame may reach beyond the clip's end.
        count = torch.tensor([self.scalar.config.latent_frames(clip.num_samples) for clip in tokens], device=device)
        latents = torch.zeros_like(noise)
        made = 0
        for start, stop in overlapping_windows(int(count.max()), flow.window_frames, flow.overlap_frames, first_window):
            given, made = made - start, stop
            rows = (count > start + given).nonzero()[:, 0]  # clips that have something new here
            stop = min(stop, int(count[rows].max()))
            mask = torch.arange(start, stop, device=device) < count[rows, None]
            latents[rows, start:stop] = self.window_latents(
                ids[rows, start // 2 : (stop + 1) // 2],
                noise[rows, start:stop],
                latents[rows, start:stop],
                given,
                mask,
                steps=steps,
                guidance=guidance,
                solver=solver,
            )
        return self.flow.denormalise(latents)

    def _waveform(self, latents: Tensor, num_samples: int) -> Tensor:
        """Latents (T25, latent_dim) of one clip -> (num_samples,); a long one in windows that are blended.

        Clip by clip, not batched: rounding has made the latents exact, so the samples do not depend on the batch even
        where a phase search would enlarge the last bit of a difference.
        """
        size = self.config.scalar.samples_per_frame
        pieces = []
        for start, stop in overlapping_windows(-(-num_samples // size), _SCALAR_WINDOW, _SCALAR_OVERLAP):
            length = min(num_samples, stop * size) - start * size
            lengths = torch.tensor([length], device=latents.device)
            pieces.append((start * size, self.scalar.decode(latents[start:stop].T[None], lengths)[0]))
        return cross_faded(pieces, _CROSS_FADE * size)[:num_samples]

    def _require_eval(self, what: str) -> None:
        if self.training:
            raise RuntimeError(f"{what} in training mode would change the codebooks; call eval() first")


class _Forwards:
    """A clip that comes in blocks (n,): any stretch of it, as long as none begins before the one asked for last."""

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


def _fit(value: Tensor, length: int) -> Tensor:
    """Cut or zero-fill the last axis to `length`."""
    return F.pad(value, (0, length - value.shape[-1]))
