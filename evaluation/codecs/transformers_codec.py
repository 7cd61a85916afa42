"""What the adapters of codecs in transformers share: weights from a folder or the hub, rates, numbers of codebooks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import transformers
from torch import Tensor

from codec.io.errors import UserError
from codec.io.third_party import third_party_errors
from codec.pretrained import weights_hash
from evaluation.codecs.base import Reconstruction, TestedCodec, from_24_khz, to_24_khz


class TransformersCodec(TestedCodec):
    """A residual-vector-quantised codec of transformers, on one clip at a time."""

    # class of transformers
    model_class: ClassVar[str]

    def __init__(self, name: str, folder: Path, kbps: float | None, device: str = "cpu") -> None:
        """Load the weights of a folder.

        Args:
            name: As results call it.
            folder: Holds config.json and the weights, as the library writes them.
            kbps: Bit rate, which sets the number of codebooks; None for all that the model has.
            device: Where it runs.

        Raises:
            UserError: The folder is damaged, or the codec has no such bit rate.
        """
        with third_party_errors(folder, "holds no codec that transformers can load", "copy it again"):
            model = getattr(transformers, self.model_class).from_pretrained(folder, dtype=torch.float32)
        self.name, self.model, self.rate = name, model.to(device).eval(), model.config.sampling_rate
        each = self.frame_rate * math.log2(model.config.codebook_size) / 1000  # kb/s of one codebook
        self.codebooks = self.most if kbps is None else round(kbps / each)
        if not self.least <= self.codebooks <= self.most or (kbps and abs(self.codebooks * each / kbps - 1) > 0.1):
            raise UserError(
                f"{name}: this codec has {self.least} to {self.most} codebooks of {each:.3g} kb/s each; ask for a bit "
                f"rate from {self.least * each:.3g} to {self.most * each:.3g} that is a multiple, or leave it out"
            )
        self.bits_per_second = 1000 * each * self.codebooks
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        config = f"{self.model_class} {model.config.to_diff_dict()} {transformers.__version__}"
        self.fingerprint = f"{weights_hash(config, model.state_dict())}-{self.codebooks}"

    @property
    def least(self) -> int:
        """Fewest codebooks that it can be used with."""
        return 1

    @property
    @abstractmethod
    def most(self) -> int:
        """All its codebooks."""

    @property
    @abstractmethod
    def frame_rate(self) -> float:
        """Frames per second."""

    @abstractmethod
    def through(self, waveform: Tensor) -> Tensor:
        """(1, 1, n) at the codec's rate -> its reconstruction (1, channels, m), m about n."""

    def reconstruct(self, waveforms: Sequence[np.ndarray]) -> list[Reconstruction]:
        made = []
        for waveform in waveforms:
            own = torch.from_numpy(from_24_khz(waveform, self.rate))[None, None]
            with torch.inference_mode():
                back = self.through(own.to(self.model.device))[0].mean(dim=0).float().cpu().numpy()
            made.append(Reconstruction(to_24_khz(back, self.rate, len(waveform))))
        return made
