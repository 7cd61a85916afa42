"""EnCodec (Défossez et al. 2022, arXiv:2210.13438) in transformers, such as facebook/encodec_24khz."""

from __future__ import annotations

from torch import Tensor

from codec.io.errors import UserError
from evaluation.codecs.transformers_codec import TransformersCodec


class Encodec(TransformersCodec):
    """EnCodec at one of its bandwidths; stereo models hear the clip on both channels."""

    model_class = "EncodecModel"

    @property
    def most(self) -> int:
        return self.model.quantizer.get_num_quantizers_for_bandwidth(max(self.model.config.target_bandwidths))

    @property
    def frame_rate(self) -> float:
        return self.model.config.frame_rate

    @property
    def bandwidth(self) -> float:
        """Of the library's list, the one with this number of codebooks."""
        known = self.model.config.target_bandwidths
        for bandwidth in known:
            if self.model.quantizer.get_num_quantizers_for_bandwidth(bandwidth) == self.codebooks:
                return bandwidth
        raise UserError(f"{self.name}: EnCodec was trained at {', '.join(f'{b:g}' for b in known)} kb/s; ask for one")

    def through(self, waveform: Tensor) -> Tensor:
        channels = waveform.expand(1, self.model.config.audio_channels, -1).contiguous()
        made = self.model.encode(channels, bandwidth=self.bandwidth)
        return self.model.decode(made.audio_codes, made.audio_scales, last_frame_pad_length=made.last_frame_pad_length)[
            0
        ]
