"""The adversary of an autoencoder: how a recipe states it, and the autoencoder's side of the game."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from codec.io.numbers import Count, Filled, NonNegative, Range, Width
from training.codec.losses.discriminator import adversarial_loss, feature_matching_loss
from training.engine.engine import Engine
from training.recipe import OptimiserRecipe

WindowSize = Annotated[int, Range(16, 2**16)]  # samples of a spectrum's window


@dataclass(frozen=True, kw_only=True)
class AdversaryRecipe:
    """The discriminator and its part in the loss."""

    # first update with it
    start_step: Count = 1
    # weight of the adversarial loss
    weight: NonNegative = 1.0
    # weight of the feature-matching loss
    feature_weight: NonNegative = 2.0
    # samples of the spectra's windows, one resolution each
    fft_sizes: Annotated[tuple[WindowSize, ...], Filled()] = (512, 1024, 2048)
    # channels of its hidden layers
    channels: Width = 32
    # its optimiser and schedule
    optimiser: OptimiserRecipe = OptimiserRecipe(betas=(0.8, 0.99), weight_decay=0.0)


def generator_losses(discriminator: Engine, waveforms: Tensor, decoded: Tensor) -> dict[str, Tensor]:
    """The autoencoder's side of the adversarial training; no gradient reaches the discriminator. Waveforms (B, n)."""
    with discriminator.frozen():
        real, fake = discriminator(waveforms), discriminator(decoded)
        return {"adversarial": adversarial_loss(fake), "features": feature_matching_loss(real, fake)}
