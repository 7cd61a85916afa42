"""X-Codec: waveform <-> one stream of codes that carry sound and what a teacher hears in it (Ye et al. 2024).

A clip of n samples has ceil(n / hop) frames, 50 a second as published: silence fills the last one. So a clip's ids do
not depend on how much of it is filled, and any n >= 1 works.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from codec.io.errors import UserError
from codec.io.strict import without_defaults
from codec.layers.config import QuantiserConfig
from codec.layers.residual_vq import residual_quantiser
from codec.reasoning.windows import BlockReader, Window, context_windows
from codec.streams import StreamSpec
from codec.tokenizer import AudioTokenizer, checked_lengths
from codec.tokens import AudioTokens
from codec.xcodec.acoustic import AcousticDecoder, AcousticEncoder
from codec.xcodec.config import XCodecConfig
from codec.xcodec.semantic import SemanticDecoder, SemanticEncoder
from codec.xcodec.streaming import StreamingDecoder
from codec.xcodec.teacher import Teacher, make_teacher

STREAM = "codes"  # neither acoustic nor semantic: each code carries both

Job = tuple[int, Window]  # the number of a clip, and one of its windows

_DECODE_FRAMES = 1500  # of one pass of the decoder; longer sound takes several


@dataclass
class XCodecOutput:
    """What training compares. The semantic fields are None without a teacher."""

    waveforms: Tensor  # (B, hop T), decoded
    ids: Tensor  # (B, T, codebooks)
    losses: Tensor  # (codebooks,) of the quantiser
    features: Tensor | None  # (B, dim, T times the strides), predicted from the codes
    target: Tensor | None  # (B, dim, T times the strides) of the teacher


class XCodec(AudioTokenizer):
    """Acoustic and semantic branch around one residual quantiser."""

    tokenizer_type = "xcodec"
    config_class = XCodecConfig

    def __init__(self, config: XCodecConfig) -> None:
        super().__init__()
        self.sample_rate = config.sample_rate
        self.acoustic_encoder = AcousticEncoder(config)
        self.acoustic_decoder = AcousticDecoder(config)
        self.teacher: Teacher | None = None
        dim = config.acoustic_dim
        if config.teacher is not None:
            self.teacher = make_teacher(config.teacher, config.sample_rate, config.hop, config.semantic.stride)
            self._require_equal_frames(self.teacher, config)
            dim += self.teacher.dim
            self.semantic_encoder = SemanticEncoder(self.teacher.dim, config.semantic)
            self.semantic_decoder = SemanticDecoder(self.teacher.dim, config.semantic)
            self.to_semantic = nn.Linear(dim, self.teacher.dim)
        # The teacher's own configuration: a saved codec needs no source for weights that it holds.
        self.config = config if self.teacher is None else replace(config, teacher=self.teacher.config)
        self.fuse = nn.Linear(dim, dim)
        self.to_acoustic = nn.Linear(dim, config.acoustic_dim)
        codebook = QuantiserConfig(
            codebook_size=config.codes,
            codebook_dim=dim,
            decay=config.decay,
            dead_code_threshold=config.dead_code_threshold,
            rotation_trick=False,
            kmeans_init=config.kmeans_init,
        )
        self.quantiser = residual_quantiser(dim, config.codebooks, codebook)

    @staticmethod
    def _require_equal_frames(teacher: Teacher, config: XCodecConfig) -> None:
        """Raise UserError where the semantic branch does not have exactly a frame for each of the acoustic one."""
        for frames in (1, 2, 3, 100):
            made = config.semantic.frames(teacher.frames(frames * config.hop))
            if made != frames:
                raise UserError(
                    f"teacher: of {frames * config.hop} samples, {frames} frames of the codec, the semantic branch "
                    f"makes {made}; its strides, the teacher's and downsampling_ratios must fit each other"
                )

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        config = self.config
        return (StreamSpec(STREAM, config.sample_rate / config.hop, config.used, config.codes, extra_frame=False),)

    def with_codebooks(self, count: int) -> Self:
        """The codec that makes and takes the first `count` codebooks: a lower bit rate, and another fingerprint.

        It shares its weights with this one. Saved, it keeps all codebooks, and loads with as many in use.
        """
        used = None if count == self.config.codebooks else count
        other = copy.copy(self)
        other.config, other._fingerprint = replace(self.config, codebooks_used=used), None
        return other

    def identity_values(self) -> dict[str, Any]:
        values: dict[str, Any] = without_defaults(self.config)
        values.pop("batch_frames", None)  # the ids mean the same
        return values

    def card_facts(self) -> dict[str, str]:
        spec, config = self.streams[0], self.config
        bits = config.used * log2(config.codes) * spec.rate
        if config.teacher is None:
            teacher = "none: a codec of sound alone"
        elif config.teacher.expert is not None:
            teacher = f"expert encoder of kind {config.teacher.expert.kind}"
        else:
            sizes = config.teacher.model
            teacher = f"{sizes.model_type}, {sizes.num_hidden_layers} layers of {sizes.hidden_size}" if sizes else ""
        return {
            "tokens": f"{spec.rate:g} Hz x {spec.codebooks} codebooks of {spec.codes} codes ({bits:.0f} bit/s)",
            "teacher": teacher,
            "sound encoded at once": f"{config.encode_window_frames / spec.rate:g} s",
        }

    def frames_of(self, waveforms: Tensor, features: Tensor | None) -> Tensor:
        """Frames (B, T, dim) to quantise, of waveforms (B, hop T) and the teacher's features of them."""
        parts = [self.acoustic_encoder(waveforms[:, None])]
        if features is not None:
            parts.append(self.semantic_encoder(features))
        return self.fuse(torch.cat(parts, dim=1).transpose(1, 2))

    def waveforms_of(self, quantised: Tensor) -> Tensor:
        """Waveforms (B, hop T) of quantised frames (B, T, dim)."""
        return self.acoustic_decoder(self.to_acoustic(quantised).transpose(1, 2))[:, 0]

    def features_of(self, quantised: Tensor) -> Tensor:
        """The teacher's features (B, dim, T times the strides) that quantised frames (B, T, dim) predict."""
        features: Tensor = self.semantic_decoder(self.to_semantic(quantised).transpose(1, 2))
        return features[..., : quantised.shape[1] * self.config.semantic.stride]

    def forward(self, waveforms: Tensor, mask: Tensor | None = None, codebooks: int | None = None) -> XCodecOutput:
        """Encode, quantise and decode with gradients.

        Args:
            waveforms: (B, hop T) float32 at `sample_rate`.
            mask: (B, T) bool; False beyond the end of a clip, where codes learn nothing. None: all True.
            codebooks: How many are used, from the first on; None: all.
        """
        target = None if self.teacher is None else self.teacher.features(waveforms)
        quantised, ids, losses = self.quantiser(self.frames_of(waveforms, target), mask, codebooks)
        features = None if target is None else self.features_of(quantised)
        return XCodecOutput(self.waveforms_of(quantised), ids, losses, features, target)

    def save_pretrained(self, folder: str | Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        if any(is_parametrized(part) for part in (*self.acoustic_encoder.modules(), *self.acoustic_decoder.modules())):
            raise RuntimeError("weights that weight norm has split are not saved; call fold_weight_norm first")
        super().save_pretrained(folder, state_dict)

    @torch.no_grad()
    def dequantise(self, stream: str, ids: Tensor) -> Tensor:
        if stream != STREAM:
            raise KeyError(stream)
        ids = ids.to(self.device)
        tables = [level._codebook.embed[0] for level in self.quantiser.layers]  # of (codes, dim)
        vectors = torch.zeros_like(tables[0][ids[..., 0]])
        for level in range(ids.shape[-1]):
            vectors = vectors + tables[level][ids[..., level]]
        return vectors

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
        held = BlockReader(blocks)
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
        hop = self.config.hop
        jobs = [(clip, window) for clip, n in enumerate(lengths) for window in self._windows(n)]
        ids: list[list[Tensor]] = [[] for _ in lengths]  # of each clip, the pieces (codebooks, frames) of its windows
        while jobs:
            batch, jobs = self._next_batch(jobs, 0 if self.device.type == "cpu" else self.config.batch_frames)
            size = batch[0][1].read_stop - batch[0][1].read_start
            pieces = [
                samples(clip, w.read_start * hop, min(lengths[clip], w.read_stop * hop)).float() for clip, w in batch
            ]
            audio = torch.stack([F.pad(piece, (0, size * hop - len(piece))) for piece in pieces]).to(self.device)
            made = self._ids(audio)
            for (clip, window), frames in zip(batch, made, strict=True):
                start, stop = window.keep_start - window.read_start, window.keep_stop - window.read_start
                ids[clip].append(frames[start:stop].T.cpu())
                if progress is not None:
                    progress(min(lengths[clip], window.keep_stop * hop) - window.keep_start * hop)
        whole = [torch.cat(pieces, dim=1).contiguous() for pieces in ids]
        return [AudioTokens({STREAM: i}, n, self.fingerprint) for i, n in zip(whole, lengths, strict=True)]

    def _windows(self, num_samples: int) -> list[Window]:
        config = self.config
        return context_windows(config.frames(num_samples), config.encode_window_frames, config.encode_context_frames)

    @staticmethod
    def _next_batch(jobs: Sequence[Job], most_frames: int) -> tuple[list[Job], list[Job]]:
        """Windows to encode together, one at least, and the others; of each clip, in their order.

        The teacher sees a window as a whole, padding too: only windows of one length may go together. On the CPU, where
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

    def _ids(self, audio: Tensor) -> Tensor:
        """Ids (B, T, codebooks) of waveforms (B, hop T)."""
        features = None if self.teacher is None else self.teacher.features(audio)
        _, ids, _ = self.quantiser(self.frames_of(audio, features))
        return ids[..., : self.config.used]

    @torch.no_grad()
    def decode(
        self,
        tokens: Sequence[AudioTokens],
        steps: int | None = None,
        seed: int | Sequence[int] = 0,
        guidance: float | None = None,
    ) -> list[Tensor]:
        """Waveforms (num_samples,) float32 of each clip, on the CPU; nothing in it takes steps, a seed or guidance.

        Raises:
            UserError: The tokens are another tokenizer's.
        """
        self._require_eval("decode")
        for clip in tokens:
            self.require_own(clip)
        return [self._waveform(clip[STREAM])[: clip.num_samples].cpu() for clip in tokens]

    def stream(
        self, steps: int | None = None, seed: int = 0, guidance: float | None = None, first_window: int | None = None
    ) -> StreamingDecoder:
        """A decoder of one clip whose frames arrive bit by bit; sound leaves as soon as it is final."""
        self._require_eval("stream")
        hop, reach = self.config.hop, self.acoustic_decoder.reach
        return StreamingDecoder(self._sound, self.streams[0], self.sample_rate, hop, reach)

    def _waveform(self, ids: Tensor) -> Tensor:
        """(hop T,) of ids (codebooks, T), window by window, each with all the context that its samples depend on."""
        windows = context_windows(ids.shape[1], _DECODE_FRAMES, self.acoustic_decoder.reach)
        return torch.cat([self._sound(ids, window) for window in windows])

    def _sound(self, ids: Tensor, window: Window) -> Tensor:
        """Samples of the frames that a window keeps, of ids (codebooks, T)."""
        frames = self.dequantise(STREAM, ids[:, window.read_start : window.read_stop].T[None])
        start, stop = window.keep_start - window.read_start, window.keep_stop - window.read_start
        return self.waveforms_of(frames)[0, start * self.config.hop : stop * self.config.hop]

    def _require_eval(self, what: str) -> None:
        if self.training:
            raise RuntimeError(f"{what} in training mode would change the codebooks; call eval() first")
