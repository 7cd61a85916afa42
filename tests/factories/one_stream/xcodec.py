"""X-Codecs small enough for tests, with random weights that matter: ours, and transformers' in two sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoderConfig
from codec.xcodec.codec import XCodec
from codec.xcodec.config import SpeechModelConfig, TeacherConfig, XCodecConfig

HUBERT = SpeechModelConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    conv_dim=(8,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
)
SMALL = XCodecConfig(
    encoder_channels=2,
    decoder_channels=32,
    acoustic_dim=16,
    codebooks=4,
    codes=64,
    teacher=TeacherConfig(model=HUBERT),
    kmeans_init=False,
    encode_window_frames=60,
    encode_context_frames=8,
)
# A conformer of 50 frames a second, the mean of all its states.
CONFORMER = ExpertConfig(
    "phone",
    "conformer",
    taps={"phone": (0, 1, 2)},
    sizes=MusicEncoderConfig(
        dim=16, heads=2, feed_forward=32, layers=2, kernel=3, channels=2, mel_bands=16, fft_size=480, hop=120
    ),
)
WITH_EXPERT = replace(SMALL, teacher=TeacherConfig(expert=CONFORMER))
WITHOUT_TEACHER = replace(SMALL, teacher=None)


def small_xcodec(config: XCodecConfig = SMALL, seed: int = 0) -> XCodec:
    """In eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = XCodec(config)
        _enliven(codec)
        for level in codec.quantiser.layers:
            level._codebook.embed.normal_()
    return codec.eval()


def library_model(size: str = "two layers", seed: int = 0, **changes: Any) -> nn.Module:
    """A random `XcodecModel` of transformers, in eval mode: "two layers" or, with other ratios, "three layers"."""
    from transformers import XcodecConfig, XcodecModel

    semantic = {"model_type": "hubert", "conv_dim": [8] * 7, "num_attention_heads": 2, "num_conv_pos_embeddings": 16}
    acoustic = {"model_type": "dac", "encoder_hidden_size": 2, "decoder_hidden_size": 32}
    if size == "two layers":
        acoustic |= {"hidden_size": 16}
        semantic |= {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
        values: dict[str, Any] = {"codebook_size": 1024}
    else:
        ratios = {"downsampling_ratios": [4, 4, 5, 4], "upsampling_ratios": [2, 5, 8, 4]}
        acoustic |= ratios | {"hidden_size": 24}
        semantic |= {"hidden_size": 48, "num_hidden_layers": 3, "intermediate_size": 64, "conv_bias": True}
        semantic |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
        values = {"codebook_size": 256, "target_bandwidths": [0.4, 1.2, 2.0], "block_dilations": [1, 2]}
        values |= {"channel_ratios": [2, 1], "unit_kernel_size": 5, "kernel_size": 5}
    semantic |= {"num_conv_pos_embedding_groups": 2}
    values |= {"acoustic_model_config": acoustic, "semantic_model_config": semantic} | changes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = XcodecModel(XcodecConfig(**values)).eval()
        _enliven(model)
        for level in model.quantizer.quantizers:  # all zeros in a new one
            level.codebook.embed.normal_()
    return model


def _enliven(model: nn.Module) -> None:
    """Weights with which sound stays about as loud as it is; those that training begins with nearly silence it."""
    for name, part in model.named_modules():
        if name.startswith("acoustic_") and isinstance(part, nn.Conv1d | nn.ConvTranspose1d):
            steps = part.kernel_size[0] // (part.stride[0] if isinstance(part, nn.ConvTranspose1d) else 1)
            nn.init.normal_(part.weight, std=0.6 * (part.in_channels * steps) ** -0.5)
            nn.init.normal_(part.bias, std=0.1)
            if name in ("acoustic_encoder.conv2", "acoustic_encoder.conv_out"):  # as loud as the semantic frames
                part.weight.data *= 40
        elif name.startswith("acoustic_") and hasattr(part, "alpha"):
            nn.init.uniform_(part.alpha, 0.5, 2)
        elif isinstance(part, nn.Linear) and "." not in name:  # those around the quantiser
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
