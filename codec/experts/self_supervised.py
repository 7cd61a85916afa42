"""A self-supervised speech encoder as an expert: WavLM, HuBERT, wav2vec 2.0 and their like."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import resample

from codec.experts.base import ExpertEncoder, average, check_layers
from codec.experts.config import ExpertConfig
from codec.experts.transformers_model import load_extractor, load_model
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE


class SelfSupervisedExpert(ExpertEncoder):
    """Hidden states of any transformers encoder of waveforms (WavLM, HuBERT, ...) or of its spectra (wav2vec2-BERT).

    Clips of equal length run together and unmasked: models that normalise over time (WavLM-base and HuBERT-base among
    them) ignore masks, so that padding would change a clip's features.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        from transformers import AutoFeatureExtractor, AutoModel

        self.encoder = load_model(AutoModel, config)
        self.extractor = load_extractor(AutoFeatureExtractor, config)
        model = self.encoder.config
        check_layers(config, model.num_hidden_layers)
        self.dims = dict.fromkeys(config.taps, model.hidden_size)
        self.reads_spectra = self.extractor.model_input_names[0] == "input_features"
        # `edge`: zeros after the last sample that let the model's last window end on a whole frame (160 as published).
        if self.reads_spectra:  # every 10 ms from windows of 25 ms, stacked
            stride, self.edge = self.extractor.sampling_rate // 100 * self.extractor.stride, 240
        else:
            stride, self.edge = math.prod(model.conv_stride), 160
        self.pool, rest = divmod(self.extractor.sampling_rate, stride * self.rate)
        if rest:
            raise UserError(
                f"{config.source}: {self.extractor.sampling_rate / stride:g} frames per second are no multiple of the "
                f"{self.rate} of the {config.role} expert; choose another model"
            )
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        rate = self.extractor.sampling_rate
        audio = resample(waveforms, SAMPLE_RATE, rate)
        total = audio.shape[1] * self.rate // rate
        features = {name: audio.new_zeros(len(audio), dim, total) for name, dim in self.dims.items()}
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            count = int(frames[rows[0]])
            needed = max(count * rate // self.rate, -(-length * rate // SAMPLE_RATE))
            clips = F.pad(audio[rows, :needed], (0, self.edge))
            states = self.encoder(self._inputs(clips), output_hidden_states=True).hidden_states
            for name, layers in self.config.taps.items():
                mean = average(states, layers).transpose(1, 2)[:, :, : count * self.pool]  # (b, C, frames of the model)
                mean = F.pad(mean, (0, count * self.pool - mean.shape[2]), mode="replicate")
                features[name][rows, :, :count] = F.avg_pool1d(mean, self.pool)
        return features

    def _inputs(self, clips: Tensor) -> Tensor:
        arguments = {"sampling_rate": self.extractor.sampling_rate, "return_tensors": "pt"}
        inputs = self.extractor([clip.cpu().numpy() for clip in clips], **arguments)
        return inputs[self.extractor.model_input_names[0]].to(clips.device)
