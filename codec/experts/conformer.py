"""The music encoder as an expert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from codec.experts.base import ExpertEncoder, average, check_layers
from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder
from codec.io.errors import UserError
from codec.tokens import SAMPLE_RATE


class ConformerExpert(ExpertEncoder):
    """Hidden states of a MusicEncoder, as published; a clip's last frame ends in silence.

    Clips of equally many frames run together, so that a clip's features do not depend on its batch. `config` holds the
    sizes in place of the source: a saved codec no longer needs the source.
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        folder = Path(config.source)
        if config.sizes is not None:
            self.encoder = MusicEncoder(config.sizes)
        else:
            self.encoder = MusicEncoder.from_pretrained(folder / "model" if (folder / "model").is_dir() else folder)
        sizes = self.encoder.config
        if sizes.sample_rate != SAMPLE_RATE or sizes.samples_per_frame * self.rate != SAMPLE_RATE:
            raise UserError(
                f"{config.source or 'sizes'}: a music encoder of {sizes.sample_rate / sizes.samples_per_frame:g} "
                f"frames per second at {sizes.sample_rate} Hz cannot serve as {config.role} expert, which needs "
                f"{self.rate} at {SAMPLE_RATE} Hz; choose another"
            )
        check_layers(config, sizes.layers)
        # Layers above the highest tap do not run; -1 is the last state.
        self.deepest = max(state % (sizes.layers + 1) for states in config.taps.values() for state in states)
        self.dims = dict.fromkeys(config.taps, sizes.dim)
        self.config = replace(config, source="", sizes=sizes)
        self.freeze()

    def _encode(self, waveforms: Tensor, lengths: Tensor, frames: Tensor) -> dict[str, Tensor]:
        size = SAMPLE_RATE // self.rate
        total = waveforms.shape[1] // size
        features = {name: waveforms.new_zeros(len(waveforms), dim, total) for name, dim in self.dims.items()}
        for count in frames.unique().tolist():
            rows = (frames == count).nonzero()[:, 0]
            states = self.encoder(waveforms[rows, : count * size], self.deepest)
            for name, layers in self.config.taps.items():
                counted = tuple(layer % (self.encoder.config.layers + 1) for layer in layers)
                features[name][rows, :, :count] = average(states, counted).transpose(1, 2)
        return features
