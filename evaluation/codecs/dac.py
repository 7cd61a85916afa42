"""DAC (Kumar et al. 2023, arXiv:2306.06546) in transformers, such as descript/dac_24khz."""

from __future__ import annotations

import torch
from torch import Tensor

from evaluation.codecs.transformers_codec import TransformersCodec


class Dac(TransformersCodec):
    """The Descript audio codec. Its convolutions cut what no frame fills, so the clip is padded to whole frames."""

    model_class = "DacModel"

    @property
    def most(self) -> int:
        return self.model.config.n_codebooks

    @property
    def frame_rate(self) -> float:
        return self.rate / self.model.config.hop_length

    def through(self, waveform: Tensor) -> Tensor:
        short = -waveform.shape[-1] % self.model.config.hop_length
        codes = self.model.encode(torch.nn.functional.pad(waveform, (0, short)), self.codebooks).audio_codes
        return self.model.decode(audio_codes=codes).audio_values[None]
