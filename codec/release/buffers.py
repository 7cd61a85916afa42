"""Tables that other libraries leave in a checkpoint beside the weights: told from weights by the ends of their names.

Our modules compute such tables or do not use them. Those that affect the results are computed again and compared; all
are reported to the person who imports the file.
"""

from __future__ import annotations

import re
from math import gcd

import torch
from torch import Tensor
from torchaudio.transforms import Resample

from codec.io.errors import UserError

_RATES = (16_000, 24_000, 22_050, 32_000, 44_100, 48_000)
_KERNEL = re.compile(r"(^|\.)kernel$")  # of torchaudio's Resample
_ORDER = re.compile(r"(^|\.)position_ids$")
_OTHERS = re.compile(
    r"(^|\.)(window|fb|mel_filters|mel_basis|dct_mat|num_batches_tracked|inv_freq|original_inv_freq|cos_cached"
    r"|sin_cached|_float_tensor|_device_param|version|total_ops|total_params)$"
)


def is_table(key: str, value: Tensor, source: str) -> bool:
    """Whether a tensor that is no part of the codec is such a table.

    Raises:
        UserError: It is one by its name, affects the results, and differs from ours.
    """
    if _KERNEL.search(key):
        if not _resamples(value):
            raise UserError(
                f"{source}: {key} is a different resampling kernel from torchaudio's at any usual rate, so "
                "results would differ; use the original file"
            )
        return True
    if _ORDER.search(key):
        if not torch.equal(value.flatten().long(), torch.arange(value.numel())):
            raise UserError(f"{source}: {key} does not count 0, 1, 2, ...; use the original file")
        return True
    return bool(_OTHERS.search(key)) and value.ndim <= 4


def _resamples(kernel: Tensor) -> bool:
    """Whether it is the kernel between two usual rates, but for the rounding of another maths library."""
    if kernel.ndim != 3 or kernel.shape[1] != 1:
        return False
    for old in _RATES:
        for new in _RATES:
            if old != new and new // gcd(old, new) == kernel.shape[0]:
                ours = Resample(old, new).kernel
                if ours.shape == kernel.shape and torch.allclose(ours, kernel.float(), atol=1e-3, rtol=0):
                    return True
    return False
