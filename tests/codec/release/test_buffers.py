"""Tables that libraries leave beside weights are known by rule, those that decide what is heard by their numbers."""

import pytest
import torch
from torchaudio.transforms import Resample

from codec.io.errors import UserError
from codec.release.buffers import is_table


@pytest.mark.parametrize(("old", "new"), [(24_000, 16_000), (48_000, 24_000), (44_100, 24_000), (16_000, 24_000)])
@pytest.mark.parametrize("key", ["wavlm_transfer.kernel", "resample.0.kernel", "kernel"])
def test_resampling_kernels_are_those_of_torchaudio(old, new, key):
    kernel = Resample(old, new).kernel
    assert is_table(key, kernel, "x.pt") and is_table(key, kernel.half(), "x.pt")
    for other in (1.1 * kernel, kernel[..., 1:], torch.zeros(3), Resample(old, new, lowpass_filter_width=16).kernel):
        with pytest.raises(UserError, match=rf"x.pt: {key} is a different resampling kernel"):
            is_table(key, other, "x.pt")


def test_tables_by_their_names():
    for key in ("a.window", "a.spectrogram.window", "a.mel_scale.fb", "bn.num_batches_tracked", "rope.inv_freq"):
        assert is_table(key, torch.ones(3), "x.pt"), key
    assert is_table("embeddings.position_ids", torch.arange(5)[None], "x.pt")
    with pytest.raises(UserError, match="position_ids does not count"):
        is_table("embeddings.position_ids", torch.tensor([0, 2]), "x.pt")
    for key in ("negative_log_likelihood.weight", "window.weight", "kernel.bias", "my_window", "fbx"):
        assert not is_table(key, torch.ones(3), "x.pt"), key
