"""The published music encoder in our modules: its sizes, which it does not state, and what of it features need.

Its checkpoint holds what pre-training used and features do not: the quantiser of the targets, the head that predicted
them, a token, and a positional convolution that its rotary positions replace. They are named here and left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from codec.experts.music_encoder import MusicEncoder, MusicEncoderConfig
from codec.io.errors import UserError
from codec.layers.rotary import rotary_frequencies
from codec.release.buffers import is_table
from codec.release.names import MUSIC, MUSIC_PREFIX, seems

# Tensors of pre-training, or that rotary positions leave unused.
PRETRAINING = ("cls_token", "linear.", "quantizer_melspec_", "conformer.pos_conv_embed.")

_WINDOW = re.compile(r"^preprocessor_melspec_(\d+)\.mel_stft\.spectrogram\.window$")
_BANDS = re.compile(r"^preprocessor_melspec_(\d+)\.mel_stft\.mel_scale\.fb$")
_FREQUENCIES = "conformer.embed_positions.inv_freq"


def music_encoder_from_published(
    state: Mapping[str, Tensor],
    source: str,
    prefix: str = MUSIC_PREFIX,
    defaults: MusicEncoderConfig = MusicEncoderConfig(),  # noqa: B008 (frozen)
) -> MusicEncoder:
    """The encoder of a published state dict, in eval mode; its sizes are read off the shapes.

    Window, mel bands and rotary frequencies are fixed tables: they are compared with ours.

    Args:
        state: Tensors by name; those that do not begin with `prefix` are ignored.
        source: The file, for messages.
        prefix: How every name of the encoder begins.
        defaults: Settings that no shape determines: hop, sample rate, mean and deviation of the spectra.

    Raises:
        UserError: A key is unknown or missing, a shape does not fit, or a table differs.
    """
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not tensors:
        raise UserError(f"{source}: no key begins with {prefix!r}; this is no published music encoder{seems(state)}")
    config = _config(tensors, source, defaults)
    encoder = MusicEncoder(config)
    converted, known = {}, encoder.state_dict().keys()
    for key, value in tensors.items():
        name = MUSIC.ours(key)
        if name is not None and name in known:
            converted[name] = value
        elif _WINDOW.match(key):
            compare_tables(value, encoder.window, f"{source}: {prefix}{key}")
        elif _BANDS.match(key):
            compare_tables(value, encoder.bands.T, f"{source}: {prefix}{key}")
        elif key == _FREQUENCIES:
            compare_tables(value, _frequencies(config), f"{source}: {prefix}{key}")
        elif name is not None and not is_table(key, value, source):
            converted[name] = value  # torch names it as left over
        elif not key.startswith(PRETRAINING) and not is_table(key, value, source):
            raise UserError(f"{source}: {prefix}{key} is no tensor of the published music encoder; use the original")
    try:
        encoder.load_state_dict(converted)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(f"{source}: not the published music encoder ({detail}); use the original file") from error
    return encoder.eval()


def _config(tensors: Mapping[str, Tensor], source: str, defaults: MusicEncoderConfig) -> MusicEncoderConfig:
    def tensor(key: str, axes: int) -> Tensor:
        if key not in tensors:
            raise UserError(f"{source}: {key} is missing from the music encoder; use the original file")
        if tensors[key].ndim != axes or not tensors[key].numel():
            raise UserError(
                f"{source}: {key} of the music encoder has shape {tuple(tensors[key].shape)}, where {axes} axes are "
                "expected; use the original file"
            )
        return tensors[key]

    bands = [key for key in tensors if _BANDS.match(key)]
    if not bands:
        raise UserError(
            f"{source}: preprocessor_melspec_2048.mel_stft.mel_scale.fb is missing from the music encoder, which "
            "determines its features; use the original file"
        )
    if len(bands) > 1:
        raise UserError(
            f"{source}: has spectra of several kinds ({', '.join(bands)}), where the published encoder has one; use "
            "the original file"
        )
    bins, mel_bands = tensor(bands[0], 2).shape
    feed_forward, dim = tensor("conformer.layers.0.ffn1.intermediate_dense.weight", 2).shape
    layers = {key.split(".")[2] for key in tensors if key.startswith("conformer.layers.")}
    frequencies = tensor(_FREQUENCIES, 1)  # base ** (-2 i / width of a head)
    base = float(frequencies[1]) ** -len(frequencies) if len(frequencies) > 1 else defaults.rotary_base
    if frequencies.dtype != torch.float32 and abs(base / defaults.rotary_base - 1) < 0.03:
        base = defaults.rotary_base  # what sixteen bits leave of it
    try:
        return replace(
            defaults,
            dim=dim,
            heads=dim // (2 * len(frequencies)),
            feed_forward=feed_forward,
            layers=len(layers),
            kernel=tensor("conformer.layers.0.conv_module.depthwise_conv.weight", 3).shape[2],
            channels=tensor("conv.conv.0.conv1.weight", 4).shape[0],
            mel_bands=mel_bands,
            fft_size=2 * (bins - 1),
            rotary_base=float(f"{base:.4g}"),  # but for the rounding of the table
        )
    except UserError as error:
        raise UserError(f"{source}: not the published music encoder ({error}); use the original file") from error


def is_fixed(key: str) -> bool:
    """Whether a tensor, without its prefix, is a table that ours computes and compares."""
    return bool(_WINDOW.match(key) or _BANDS.match(key) or key == _FREQUENCIES)


def fixed_tables(encoder: MusicEncoder) -> dict[str, Tensor]:
    """The tables as the published checkpoint holds them, by name without prefix."""
    mel = f"preprocessor_melspec_{encoder.config.fft_size}.mel_stft"
    return {
        f"{mel}.spectrogram.window": encoder.window,
        f"{mel}.mel_scale.fb": encoder.bands.T,
        _FREQUENCIES: _frequencies(encoder.config),
    }


def _frequencies(config: MusicEncoderConfig) -> Tensor:
    return rotary_frequencies(config.dim // config.heads, config.rotary_base)


def compare_tables(published: Tensor, ours: Tensor, what: str) -> None:
    """Raise UserError where two tables differ by more than the rounding of another maths library, or of a narrow type.

    Args:
        what: Names the published one.
    """
    close = 1e-3 if published.dtype in (torch.float32, torch.float64) else 5e-3
    if published.shape != ours.shape or not torch.allclose(published.float(), ours.float(), atol=close, rtol=close):
        raise UserError(f"{what} differs from the published table, so results would differ; use the original file")
