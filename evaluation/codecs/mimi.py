"""Mimi (Défossez et al. 2024, arXiv:2410.00037) in transformers, such as kyutai/mimi."""

from __future__ import annotations

from torch import Tensor

from evaluation.codecs.transformers_codec import TransformersCodec


class Mimi(TransformersCodec):
    """Mimi with its first codebooks: the semantic one and as many acoustic ones as the bit rate has room for."""

    model_class = "MimiModel"

    @property
    def least(self) -> int:
        return self.model.config.num_semantic_quantizers

    @property
    def most(self) -> int:
        return self.model.config.num_quantizers

    @property
    def frame_rate(self) -> float:
        return self.model.config.frame_rate

    def through(self, waveform: Tensor) -> Tensor:
        codes = self.model.encode(waveform, num_quantizers=self.codebooks).audio_codes
        return self.model.decode(codes).audio_values
