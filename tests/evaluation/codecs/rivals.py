"""Tiny codecs of transformers with random weights, saved as the library saves them."""

from __future__ import annotations

from pathlib import Path

import torch


def write_dac(folder: Path, rate: int = 16_000) -> Path:
    from transformers import DacConfig, DacModel

    config = DacConfig(
        encoder_hidden_size=8, downsampling_ratios=[4, 8], decoder_hidden_size=16, n_codebooks=3, codebook_size=16,
        codebook_dim=4, upsampling_ratios=[8, 4], sampling_rate=rate,
    )  # fmt: skip
    return _saved(DacModel, config, folder)


def write_encodec(folder: Path, channels: int = 1) -> Path:
    from transformers import EncodecConfig, EncodecModel

    config = EncodecConfig(
        target_bandwidths=[1.5, 3.0], sampling_rate=24_000, audio_channels=channels, hidden_size=16, num_filters=4,
        upsampling_ratios=[8, 5, 4, 2], codebook_size=1024, codebook_dim=16, num_lstm_layers=1,
    )  # fmt: skip
    return _saved(EncodecModel, config, folder)


def write_mimi(folder: Path) -> Path:
    from transformers import MimiConfig, MimiModel

    config = MimiConfig(
        hidden_size=16, num_filters=4, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=8,
        intermediate_size=16, codebook_size=32, codebook_dim=8, num_quantizers=4, num_semantic_quantizers=1,
        vector_quantization_hidden_dimension=8, upsample_groups=16,
    )  # fmt: skip
    return _saved(MimiModel, config, folder)


def _saved(model_class: type, config, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        for name, tensor in model.state_dict().items():  # codebooks start at 0, where all codes are one
            if name.endswith((".embed", ".embed_sum")):
                tensor.normal_()
    model.save_pretrained(folder)
    return folder
