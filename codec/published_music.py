"""The published music encoder in our modules: names of its tensors, and its sizes, which it does not state.

Its checkpoint holds what pre-training used and features do not: the quantiser of the targets, the head that predicted
them, a token, and a positional convolution that its rotary positions replace. They are named here and left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from codec.errors import UserError
from codec.music_encoder import MusicEncoder, MusicEncoderConfig

PREFIX = "model."  # of every key in its own checkpoint

_NAMES = [
    (r"^conv\.linear\.", "front_end.linear."),
    (r"^conv\.conv\.(\d+)\.conv1\.", r"front_end.blocks.\1.conv_in."),
    (r"^conv\.conv\.(\d+)\.bn1\.", r"front_end.blocks.\1.norm_in."),
    (r"^conv\.conv\.(\d+)\.conv2\.", r"front_end.blocks.\1.conv_out."),
    (r"^conv\.conv\.(\d+)\.bn2\.", r"front_end.blocks.\1.norm_out."),
    (r"^conv\.conv\.(\d+)\.conv3\.", r"front_end.blocks.\1.shortcut."),
    (r"^conv\.conv\.(\d+)\.bn3\.", r"front_end.blocks.\1.shortcut_norm."),
    (r"^conformer\.layer_norm\.", "norm."),
    (r"^conformer\.layers\.(\d+)\.ffn1_layer_norm\.", r"layers.\1.feed_forward_in.norm."),
    (r"^conformer\.layers\.(\d+)\.ffn1\.intermediate_dense\.", r"layers.\1.feed_forward_in.up."),
    (r"^conformer\.layers\.(\d+)\.ffn1\.output_dense\.", r"layers.\1.feed_forward_in.down."),
    (r"^conformer\.layers\.(\d+)\.self_attn_layer_norm\.", r"layers.\1.attention.norm."),
    (r"^conformer\.layers\.(\d+)\.self_attn\.linear_q\.", r"layers.\1.attention.query."),
    (r"^conformer\.layers\.(\d+)\.self_attn\.linear_k\.", r"layers.\1.attention.key."),
    (r"^conformer\.layers\.(\d+)\.self_attn\.linear_v\.", r"layers.\1.attention.value."),
    (r"^conformer\.layers\.(\d+)\.self_attn\.linear_out\.", r"layers.\1.attention.out."),
    (r"^conformer\.layers\.(\d+)\.conv_module\.layer_norm\.", r"layers.\1.convolution.norm."),
    (r"^conformer\.layers\.(\d+)\.conv_module\.pointwise_conv1\.", r"layers.\1.convolution.pointwise_in."),
    (r"^conformer\.layers\.(\d+)\.conv_module\.depthwise_conv\.", r"layers.\1.convolution.depthwise."),
    (r"^conformer\.layers\.(\d+)\.conv_module\.batch_norm\.", r"layers.\1.convolution.batch_norm."),
    (r"^conformer\.layers\.(\d+)\.conv_module\.pointwise_conv2\.", r"layers.\1.convolution.pointwise_out."),
    (r"^conformer\.layers\.(\d+)\.ffn2_layer_norm\.", r"layers.\1.feed_forward_out.norm."),
    (r"^conformer\.layers\.(\d+)\.ffn2\.intermediate_dense\.", r"layers.\1.feed_forward_out.up."),
    (r"^conformer\.layers\.(\d+)\.ffn2\.output_dense\.", r"layers.\1.feed_forward_out.down."),
    (r"^conformer\.layers\.(\d+)\.final_layer_norm\.", r"layers.\1.norm."),
]

# Tensors of pre-training, or that rotary positions leave unused.
PRETRAINING = ("cls_token", "linear.", "quantizer_melspec_", "conformer.pos_conv_embed.")

_WINDOW = re.compile(r"^preprocessor_melspec_(\d+)\.mel_stft\.spectrogram\.window$")
_BANDS = re.compile(r"^preprocessor_melspec_(\d+)\.mel_stft\.mel_scale\.fb$")
_FREQUENCIES = "conformer.embed_positions.inv_freq"


def our_music_name(published: str) -> str | None:
    """Our name, relative to MusicEncoder, of a published tensor without its prefix; None where there is none."""
    for pattern, replacement in _NAMES:
        if re.match(pattern, published):
            return re.sub(pattern, replacement, published)
    return None


def music_encoder_from_published(
    state: Mapping[str, Tensor],
    source: str,
    prefix: str = PREFIX,
    unstated: MusicEncoderConfig = MusicEncoderConfig(),  # noqa: B008 (frozen)
) -> MusicEncoder:
    """The encoder of a published state dict, in eval mode; its sizes are read off the shapes.

    state: may hold other models' keys: only those under `prefix` are looked at. source: the file, for messages
    unstated: what no shape says is taken from it: hop, sample rate, mean and deviation of the spectra
    Window, mel bands and rotary frequencies are fixed tables: they are compared with ours. Raises UserError where a
    key is unknown or missing, a shape does not fit, or a table is another one.
    """
    mine = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not mine:
        raise UserError(f"{source}: no key begins with {prefix!r}; this is no published music encoder")
    config = _config(mine, source, unstated)
    encoder = MusicEncoder(config)
    head_dim = config.dim // config.heads
    frequencies = config.rotary_base ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    converted = {}
    for key, value in mine.items():
        name = our_music_name(key)
        if name is not None:
            converted[name] = value
        elif _WINDOW.match(key):
            _compare(value, encoder.window, f"{source}: {prefix}{key}")
        elif _BANDS.match(key):
            _compare(value, encoder.bands.T, f"{source}: {prefix}{key}")
        elif key == _FREQUENCIES:
            _compare(value, frequencies, f"{source}: {prefix}{key}")
        elif not key.startswith(PRETRAINING):
            raise UserError(f"{source}: {prefix}{key} is no tensor of the published music encoder; use the original")
    try:
        encoder.load_state_dict(converted)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: not the published music encoder ({detail}); use the original file") from error
    return encoder.eval()


def _config(mine: Mapping[str, Tensor], source: str, unstated: MusicEncoderConfig) -> MusicEncoderConfig:
    def tensor(key: str) -> Tensor:
        if key not in mine:
            raise UserError(f"{source}: {key} is missing from the music encoder; use the original file")
        return mine[key]

    bands = [key for key in mine if _BANDS.match(key)]
    if len(bands) != 1:
        raise UserError(f"{source}: holds {len(bands)} tables of mel bands, where the published encoder has one")
    bins, mel_bands = tensor(bands[0]).shape
    feed_forward, dim = tensor("conformer.layers.0.ffn1.intermediate_dense.weight").shape
    layers = {key.split(".")[2] for key in mine if key.startswith("conformer.layers.")}
    frequencies = tensor(_FREQUENCIES)  # base ** (-2 i / width of a head)
    base = float(frequencies[1]) ** -len(frequencies) if len(frequencies) > 1 else unstated.rotary_base
    return replace(
        unstated,
        dim=dim,
        heads=dim // (2 * len(frequencies)),
        feed_forward=feed_forward,
        layers=len(layers),
        kernel=tensor("conformer.layers.0.conv_module.depthwise_conv.weight").shape[2],
        channels=tensor("conv.conv.0.conv1.weight").shape[0],
        mel_bands=mel_bands,
        fft_size=2 * (bins - 1),
        rotary_base=float(f"{base:.4g}"),  # but for the rounding of the table
    )


def _compare(theirs: Tensor, ours: Tensor, what: str) -> None:
    """The same table, but for the rounding of another maths library."""
    if theirs.shape != ours.shape or not torch.allclose(theirs.float(), ours, atol=1e-4, rtol=0):
        raise UserError(f"{what} is another table than the published encoder's; it would hear something else")
