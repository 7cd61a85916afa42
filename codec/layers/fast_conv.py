"""Convolutions over time that compute on the CPU, where nothing needs a gradient, with fewer multiplications.

They keep time outermost in memory: a kernel of one step, and a transposed convolution whose kernel is twice its stride,
are then one matrix product. Longer kernels take the minimal filtering of Toom and Cook that Winograd (1980, "Arithmetic
Complexity of Computations") describes and Lavin and Gray (2016, "Fast Algorithms for Convolutional Neural Networks")
brought to networks: 4 outputs of 4 taps by 7 products, not 16. A kernel of 7 is two groups of 4 taps, added before the
products are turned back, as the inputs of the second are those of the first one tile later. Values differ from the
direct ones by rounding, some 5 times that of float32 products.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.fast_linear import product

TILE, TAPS = 4, 4  # outputs and taps of a tile
# Where polynomials are evaluated, besides at infinity. Among the sets of six small ones it rounds least.
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2), Fraction(2))
_STEPS = TILE + TAPS - 1  # inputs and products of a tile
_CHUNK = 2**17  # inputs that are turned at once: with their products they stay in a processor's cache
_LEAST_CHANNELS, _LEAST_TILES = 32, 4  # below which turning costs more than it saves


def _powers(count: int) -> Tensor:
    """(7, count): the points' powers; that of infinity is the highest alone."""
    rows = [[float(point**power) for power in range(count)] for point in _POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


# Outputs are OUTPUTS @ ((WEIGHTS @ taps) * (INPUTS @ inputs)).
_INPUTS, _WEIGHTS, _OUTPUTS = torch.linalg.inv(_powers(_STEPS)).T, _powers(TAPS), _powers(TILE).T
_SCALES = _INPUTS.abs().sum(1, keepdim=True)  # inputs keep their size, so that no product drowns the others
_INPUTS, _WEIGHTS = (_INPUTS / _SCALES).float(), _WEIGHTS * _SCALES
_OUTPUTS = _OUTPUTS.float().contiguous()


class _Prepared(nn.Module):
    """What both convolutions share: weights that are turned once, and when that may be used.

    The turned weights are kept in eval mode until the plain ones change.
    """

    weight: Any
    bias: Any
    _turned: tuple[Tensor, int, Any] | None = None

    def _may_be_fast(self, x: Tensor) -> bool:
        return (
            not torch.is_grad_enabled()
            and not self.training
            and "weight" in self._parameters  # weight norm makes another one for each call
            and not self.weight.is_inference()  # changes of such a one are not counted
            and x.device.type == self.weight.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )

    def _prepared(self, turn: Callable[[Tensor], Any]) -> Any:
        weight, version = self.weight, self.weight._version
        if self._turned is None or self._turned[0] is not weight or self._turned[1] != version:
            self._turned = (weight, version, turn(weight.detach()))
        return self._turned[2]

    def train(self, mode: bool = True) -> Self:
        self._turned = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._turned = None
        return super()._apply(*args, **kwargs)


class FastConv1d(_Prepared, nn.Conv1d):
    """nn.Conv1d of one group with the same parameters, gradients and, but for rounding, values.

    What it returns without a gradient on the CPU has time outermost in memory, whatever it is given.
    """

    def forward(self, x: Tensor) -> Tensor:  # (B, C, T)
        if not self._may_be_fast(x) or self.groups != 1 or self.padding_mode != "zeros":
            return super().forward(x)
        kernel, dilation = self.kernel_size[0], self.dilation[0]
        same = self.stride == (1,) and self.padding == (kernel // 2 * dilation,) and kernel % 2
        if same and kernel == 1:
            return product(x.transpose(1, 2), self.weight[..., 0], self.bias).transpose(1, 2)
        if same and self.out_channels == 1:
            return self._to_one(x)
        wide = min(self.in_channels, self.out_channels) >= _LEAST_CHANNELS
        if same and wide and TAPS < kernel <= 2 * TAPS and x.shape[2] >= _LEAST_TILES * TILE * dilation:
            frames = x.transpose(1, 2).contiguous()  # (B, T, C)
            weights = self._prepared(turned_taps)
            made = [filtered(one, weights, self.bias, kernel, dilation) for one in frames]
            return (made[0][None] if len(made) == 1 else torch.stack(made)).transpose(1, 2)
        if same and self.in_channels == 1 and dilation == 1:
            steps = F.pad(x[:, 0], (kernel // 2, kernel // 2)).unfold(1, kernel, 1)  # (B, T, kernel)
            return F.linear(steps, self.weight[:, 0], self.bias).transpose(1, 2)
        return super().forward(x.transpose(1, 2).contiguous().transpose(1, 2))

    def _to_one(self, x: Tensor) -> Tensor:
        """One output channel: what each tap makes of each step, then the sums along the diagonals."""
        kernel, dilation, steps = self.kernel_size[0], self.dilation[0], x.shape[2]
        side = self.padding[0] if isinstance(self.padding, tuple) else 0
        each = F.pad(x.transpose(1, 2) @ self.weight[0], (0, 0, side, side))  # (B, T + 2 side, kernel)
        shape, strides = (len(x), steps, kernel), (each.stride(0), kernel, kernel * dilation + 1)
        summed = each.as_strided(shape, strides).sum(2)
        return (summed if self.bias is None else summed + self.bias)[:, None]


class FastConvTranspose1d(_Prepared, nn.ConvTranspose1d):
    """nn.ConvTranspose1d with the same parameters, gradients and, but for rounding, values.

    What it returns without a gradient on the CPU, for a kernel of twice the stride, has time outermost in memory.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # (B, C, T)
        stride, padding, more = self.stride[0], self.padding[0], self.output_padding[0]
        assert isinstance(padding, int)  # the type knows of "same" too, which nn.ConvTranspose1d refuses
        fits = self.kernel_size[0] == 2 * stride and more <= padding and self.groups == self.dilation[0] == 1
        if not fits or output_size is not None or not self._may_be_fast(x):
            return super().forward(x, output_size)
        # A block of `stride` outputs comes of one step and the step before.
        padded = F.pad(x.transpose(1, 2), (0, 0, 1, 1))  # (B, T + 2, C)
        weight, bias = self._prepared(self._of_two_steps)
        blocks = product(torch.cat([padded[:, :-1], padded[:, 1:]], dim=2), weight, bias)  # (B, T + 1, stride Co)
        steps = blocks.view(len(x), -1, self.out_channels)
        return steps[:, padding : (x.shape[2] + 1) * stride - padding + more].transpose(1, 2)

    def _of_two_steps(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of weight (C, Co, 2 stride): (stride Co, 2 C), the step before first, and the bias of all of them."""
        stride = self.stride[0]
        now, before = weight[..., :stride], weight[..., stride:]
        matrix = torch.cat([before, now]).permute(2, 1, 0).reshape(stride * self.out_channels, -1).contiguous()
        return matrix, None if self.bias is None else self.bias.detach().repeat(stride)


def turned_taps(weight: Tensor) -> Tensor:
    """Weights (Co, C, 5 to 8) -> (2, 7, C, Co), both groups of taps at all points."""
    padded = F.pad(weight.double(), (0, 2 * TAPS - weight.shape[2])).unflatten(2, (2, TAPS))
    return torch.einsum("pk,oigk->gpio", _WEIGHTS, padded).float().contiguous()


def filtered(x: Tensor, weights: Tensor, bias: Tensor | None, kernel: int, dilation: int) -> Tensor:
    """x (T, C), time outermost, through a kernel of 5 to 8 steps that `turned_taps` has turned: (T, Co).

    Steps are taken `dilation` apart, that many sequences beside each other: a tile is four rows of them.
    """
    steps, channels = x.shape
    tile = TILE * dilation  # steps of a row of tiles
    rows, at_once = -(-steps // tile), max(1, _CHUNK // (channels * tile))
    made = x.new_empty(rows, TILE, dilation * weights.shape[3])
    shift = None if bias is None else bias.repeat(dilation)
    side = kernel // 2 * dilation
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        start, stop = first * tile - side, (first + count + 1) * tile - side + (_STEPS - TILE) * dilation
        piece = x[max(0, start) : min(steps, stop)]
        if len(piece) < stop - start:
            piece = F.pad(piece, (0, 0, max(0, -start), max(0, stop - steps)))
        width = dilation * channels
        # The seven inputs of each tile, and of the one behind: (7, count + 1, dilation C).
        inputs = piece.as_strided((_STEPS, count + 1, width), (width, TILE * width, 1)).reshape(_STEPS, -1)
        turned = (_INPUTS @ inputs).view(_STEPS, -1, channels)
        products = torch.bmm(turned[:, :-dilation], weights[0]).baddbmm_(turned[:, dilation:], weights[1])
        outputs = (_OUTPUTS @ products.view(_STEPS, -1)).view(TILE, count, -1).transpose(0, 1)
        if shift is None:
            made[first : first + count] = outputs
        else:
            torch.add(outputs, shift, out=made[first : first + count])
    return made.view(rows * tile, -1)[:steps]
