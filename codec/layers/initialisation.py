"""Initialisation from data: the scale of every layer is set so that its outputs begin with a deviation of one.

Weight normalisation proposes it (Salimans and Kingma 2016, "Weight Normalization", §3). A codec of forty convolutions
needs it: at PyTorch's scale each of them halves what varies in its input, so that all frames begin as nearly one
vector, the codebooks have nothing to tell apart, and the decoder learns the mean spectrum for a long time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv1d | nn.ConvTranspose1d

_SMALLEST = 1e-5  # deviation of outputs, below which they are taken as constant and left as they are


@torch.no_grad()
def initialise_from_data(
    model: nn.Module, forward: Callable[[], object], deviations: Mapping[nn.Module, float] | None = None
) -> None:
    """Scale every trainable linear layer and convolution, and shift its bias where it has one.

    Args:
        model: Its frozen parts stay as they are.
        forward: Runs a batch of data through the model; each layer is set when it is first reached.
        deviations: Of the outputs of some layers; of all others it is 1.
    """
    wanted = deviations or {}
    layers = [module for module in model.modules() if isinstance(module, Layer) and module.weight.requires_grad]
    waiting = set(layers)

    def set_scale(layer: Layer, inputs: Any, outputs: Tensor) -> Tensor | None:
        if layer not in waiting:
            return None
        waiting.remove(layer)
        return _scaled(layer, outputs, wanted.get(layer, 1.0))

    hooks = [layer.register_forward_hook(set_scale) for layer in layers]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()


def _scaled(layer: Layer, outputs: Tensor, wanted: float) -> Tensor:
    """Set one layer, and return what it gives now for the same inputs."""
    channels = -1 if isinstance(layer, nn.Linear) else 1
    flat = outputs.movedim(channels, 0).flatten(1)  # (C, everything else)
    mean = flat.mean(1) if layer.bias is not None else flat.new_zeros(len(flat))
    deviation = flat.std(1, correction=0)
    scale = torch.where(deviation > _SMALLEST, wanted / deviation.clamp(min=_SMALLEST), 1.0)  # (C,)
    if isinstance(layer, nn.ConvTranspose1d):
        # Weight norm keeps one length for each of its *input* channels: all outputs take one factor.
        scale = scale.mean().expand_as(scale)
    side = layer.weight.dim() * [1]
    side[1 if isinstance(layer, nn.ConvTranspose1d) else 0] = -1
    layer.weight.mul_(scale.view(side))
    if layer.bias is not None:
        layer.bias.copy_((layer.bias - mean) * scale)
    shape = outputs.dim() * [1]
    shape[channels] = -1
    return (outputs - mean.view(shape)) * scale.view(shape)
