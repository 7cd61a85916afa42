"""Tokenizers that encode window by window: one way in for clips in memory and for clips that are read in blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from codec.io.errors import UserError
from codec.layers.windows import BlockReader
from codec.tokenizer import AudioTokenizer, checked_lengths
from codec.tokens import AudioTokens


class WindowedTokenizer(AudioTokenizer):
    """What such a tokenizer does once it is said how clips are encoded whose samples are asked for piece by piece."""

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

    @abstractmethod
    def _encode(
        self,
        lengths: Sequence[int],
        samples: Callable[[int, int, int], Tensor],
        progress: Callable[[int], None] | None,
    ) -> list[AudioTokens]:
        """Tokens of clips of `lengths` samples; samples(clip, start, stop) gives them, a clip's in ascending order."""

    def _require_eval(self, what: str) -> None:
        if self.training:
            raise RuntimeError(f"{what} in training mode would change the codebooks; call eval() first")
