"""The encoder of a Whisper as an expert (Radford et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import resample

from codec.experts.base import ExpertEncoder, average, check_layers
from codec.experts.config import ExpertConfig
from codec.experts.transformers_model import load_extractor, load_model
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE

WHISPER_RATE = 50  # frames per second of every Whisper encoder


class WhisperExpert(ExpertEncoder):
    """Encoder of any transformers Whisper model, on windows of fixed length, the last one padded with silence.

    In the role "music" two of its frames are averaged into one.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        from transformers import WhisperFeatureExtractor, WhisperModel

        self.encoder = load_model(WhisperModel, config, "encoder.").get_encoder()
        self.extractor = load_extractor(WhisperFeatureExtractor, config)
        self.dims = dict.fromkeys(config.taps, self.encoder.config.d_model)
        check_layers(config, self.encoder.config.encoder_layers)
        self.pool = WHISPER_RATE // self.rate
        if config.window_seconds is not None:
            positions = round(config.window_seconds * WHISPER_RATE)
            if not 0 < positions <= self.encoder.config.max_source_positions:
                most = self.encoder.config.max_source_positions / WHISPER_RATE
                raise UserError(
                    f"{config.source}: this Whisper takes windows of at most {most:g} s; lower window_seconds"
                )
            kept = self.encoder.embed_positions.weight.data[:positions].clone()
            self.encoder.embed_positions = nn.Embedding.from_pretrained(kept)
            self.encoder.config.max_source_positions = self.encoder.max_source_positions = positions
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        rate, window = self.extractor.sampling_rate, self.encoder.config.max_source_positions  # Hz, frames
        samples = window * rate // WHISPER_RATE
        audio = resample(waveforms, SAMPLE_RATE, rate)
        total = audio.shape[1] * WHISPER_RATE // rate  # frames
        audio = F.pad(audio, (0, -audio.shape[1] % samples)).unflatten(1, (-1, samples))  # (B, W, samples)
        filled = [(row, i) for row, n in enumerate(frames.tolist()) for i in range(-(-n * self.pool // window))]
        rows, indices = (torch.tensor(column, device=audio.device) for column in zip(*filled, strict=True))
        spectra = self._spectra(audio[rows, indices])
        states = self.encoder(spectra, output_hidden_states=True).hidden_states  # of (N, window, C)
        placed = {
            name: self._in_place(average(states, layers), rows, indices, audio.shape[:2])[:, :, :total]
            for name, layers in self.config.taps.items()
        }
        return {name: F.avg_pool1d(value, self.pool) for name, value in placed.items()}

    def _spectra(self, windows: Tensor) -> Tensor:
        """Windows (N, samples) -> log-mel spectra (N, bands, 2 window): those of the extractor, but with gradients."""
        made = self.extractor
        hann = torch.hann_window(made.n_fft, device=windows.device)
        spectrum = torch.stft(windows, made.n_fft, made.hop_length, window=hann, return_complex=True)[..., :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        filters = torch.as_tensor(made.mel_filters, dtype=power.dtype, device=power.device)  # (bins, bands)
        log = (filters.T @ power).clamp(min=1e-10).log10()
        loudest = log.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(log, loudest - 8.0) + 4.0) / 4.0

    @staticmethod
    def _in_place(states: Tensor, rows: Tensor, indices: Tensor, shape: torch.Size) -> Tensor:
        """Windows (N, window, C) put where they belong: (B, C, W * window)."""
        placed = states.new_zeros(*shape, *states.shape[1:])
        placed[rows, indices] = states
        return placed.flatten(1, 2).transpose(1, 2)
