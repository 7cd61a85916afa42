"""ALMTokenizer: waveform <-> one stream of codes of learned queries, at a rate set by its window (Yang et al. 2025).

Convolutions make 75 patches a second. A learned query follows every w of them; a transformer reads both, and the
queries alone are kept and quantised. The decoder stands w mask tokens behind each quantised query; a transformer fills
them in, and convolutions make sound of them. w is chosen at use: one model, several rates.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from codec.almtokenizer.config import ALMTokenizerConfig
from codec.almtokenizer.patches import Patchify, Unpatchify
from codec.almtokenizer.transformer import Transformer
from codec.io.strict import without_defaults
from codec.layers.residual_vq import residual_quantiser
from codec.one_stream import OneStreamTokenizer
from codec.streams import StreamSpec

STREAM = "queries"


class ALMTokenizer(OneStreamTokenizer):
    """Patchify, encoder, residual quantiser, decoder, unpatchify."""

    tokenizer_type = "almtokenizer"
    config_class = ALMTokenizerConfig

    def __init__(self, config: ALMTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.patchify = Patchify(config.patches, config.dim)
        self.query = nn.Parameter(0.02 * torch.randn(config.dim)) if config.downsampling == "query" else None
        self.encoder = Transformer(config.dim, config.encoder)
        self.quantiser = residual_quantiser(config.dim, config.codebooks, config.quantiser)
        self.mask_token = nn.Parameter(0.02 * torch.randn(config.dim))
        self.decoder = Transformer(config.dim, config.decoder)
        self.unpatchify = Unpatchify(config.patches, config.dim)

    @property
    def streams(self) -> tuple[StreamSpec, ...]:
        config = self.config
        rate = config.patches.rate / config.window
        return (StreamSpec(STREAM, rate, config.codebooks, config.codes, extra_frame=False),)

    def with_window(self, window: int) -> Self:
        """The tokenizer with a query after every `window` patches: another rate, and another fingerprint.

        It shares its weights with this one. Saved, it loads with this window, and takes any other again.

        Raises:
            UserError: Training drew no such window.
        """
        other = copy.copy(self)
        other.config, other._fingerprint = replace(self.config, window=window), None
        return other

    def at_each_rate(self) -> tuple[Self, ...]:
        return tuple(self.with_window(w) for w in range(self.config.least_window, self.config.most_window + 1))

    @property
    def samples_per_frame(self) -> int:
        return self.config.samples_per_frame

    @property
    def encode_window(self) -> tuple[int, int]:
        # All that a query depends on: windows of long sound give the ids of the whole.
        context = -(-(self.patchify.reach + max(self.encoder.reach)) // self.config.window) + 1
        return self._frames_of_a_pass + 2 * context, context

    @property
    def decode_window_frames(self) -> int:
        return self._frames_of_a_pass

    @property
    def _frames_of_a_pass(self) -> int:
        return max(1, self.config.pass_patches // self.config.window)

    @property
    def batch_frames(self) -> int:
        return self.config.batch_patches // self.config.window

    @property
    def decode_reach(self) -> tuple[int, int]:
        before, after = self.decoder.reach
        convolutions, window = self.unpatchify.reach, self.config.window
        return -(-(before + convolutions + 1) // window), (after + convolutions) // window + 1

    def identity_values(self) -> dict[str, Any]:
        values: dict[str, Any] = without_defaults(self.config)
        values.pop("batch_patches", None)  # the ids mean the same
        return values

    def card_facts(self) -> dict[str, str]:
        spec, config = self.streams[0], self.config
        rates = (config.patches.rate / w for w in (config.most_window, config.least_window))
        tokens = f"{spec.rate:g} Hz x {spec.codebooks} codebooks of {spec.codes} codes"
        return {
            "tokens": f"{tokens} ({spec.bits_per_second:.0f} bit/s)",
            "window": f"{config.window} of {config.patches.rate:g} patches a second",
            "other rates of the same weights": "{:g} to {:g} Hz".format(*rates),
        }

    def queries_of(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries before quantisation.

        Args:
            patches: (B, w T, dim).
            mask: (B, w T) bool, False beyond the end of a clip, which ends with a window. None: all True.

        Returns:
            (B, T, dim).
        """
        window = self.config.window
        groups = patches.unflatten(1, (-1, window))  # (B, T, w, dim)
        times = torch.arange(patches.shape[1], device=patches.device).view(-1, window).float()  # (T, w)
        if self.query is not None:
            groups = torch.cat([groups, self.query.expand(*groups.shape[:2], 1, -1)], dim=2)
            times = torch.cat([times, times[:, -1:] + 0.5], dim=1)
        if mask is not None:
            mask = mask.unflatten(1, (-1, window))
            mask = mask[..., :1].expand(-1, -1, groups.shape[2]).flatten(1)
        read = self.encoder(groups.flatten(1, 2), times.flatten(), mask).unflatten(1, (-1, groups.shape[2]))
        return read.mean(2) if self.query is None else read[:, :, -1]

    def states_of(self, quantised: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the decoder fills in: (B, w T, dim) of quantised queries (B, T, dim), of which mask (B, T) is True."""
        window = self.config.window
        blanks = self.mask_token.expand(*quantised.shape[:2], window, -1)
        groups = torch.cat([quantised[:, :, None], blanks], dim=2)  # (B, T, 1 + w, dim)
        starts = torch.arange(quantised.shape[1], device=quantised.device)[:, None] * window
        places = torch.arange(window, device=quantised.device)
        times = torch.cat([starts - 0.5, starts + places], dim=1)  # (T, 1 + w)
        if mask is not None:
            mask = mask.repeat_interleave(1 + window, dim=1)
        read = self.decoder(groups.flatten(1, 2), times.flatten(), mask)
        return read.unflatten(1, (-1, 1 + window))[:, :, 1:].flatten(1, 2)

    def unquantised(self, queries: Tensor) -> Tensor:
        """Queries (B, T, dim) through the channels of the codes, as if there were a code for each."""
        return self.quantiser.project_out(self.quantiser.project_in(queries))

    def encode_ids(self, waveforms: Tensor) -> Tensor:
        _, ids, _ = self.quantiser(self.queries_of(self.patchify(waveforms)))
        return ids

    def waveforms_of(self, quantised: Tensor) -> Tensor:
        return self.unpatchify(self.states_of(quantised))

    @torch.no_grad()
    def dequantise(self, stream: str, ids: Tensor) -> Tensor:
        if stream != STREAM:
            raise KeyError(stream)
        return self.quantiser.vectors(ids.to(self.device))
