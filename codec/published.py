"""The published ReasoningCodec in our modules: names of its tensors, and the codec of its released files.

`our_name` maps one published state-dict key to ours (relative to ReasoningCodec), for importer and numerical tests.
`codec_from_published` builds the whole codec: sizes are read off the shapes, every tensor must have a place, and every
place a tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor

from codec.config import QuantiserConfig
from codec.descriptive import from_published
from codec.errors import UserError
from codec.experts import ExpertConfig
from codec.flow_transformer import sinusoidal_positions
from codec.music_encoder import MusicEncoder
from codec.published_music import PREFIX, PRETRAINING, music_encoder_from_published
from codec.reasoning_codec import ReasoningCodec, ReasoningCodecConfig
from codec.scalar import ScalarAutoencoder, ScalarConfig
from codec.strict import parse
from codec.weight_files import read_weights

_PREFIXES = {
    "zero_cond_embedding1": "structural.no_condition",
    "d_conv_whisper.": "structural.downsample.speech_text.",
    "d_conv_wavlm.": "structural.downsample.phone.",
    "d_conv_embedding_semantic.": "structural.downsample.music_semantic.",
    "d_conv_embedding_acoustic.": "structural.downsample.music_acoustic.",
    "cond_fusion_layer_phone.": "structural.fusion.phone.",
    "cond_fusion_layer_semantic.": "structural.fusion.structure.",
    "cond_fusion_layer_acoustic.": "structural.fusion.acoustic.",
    "time_film_phone.": "structural.film.phone.linear.",
    "time_film_semantic.": "structural.film.structure.linear.",
    "time_film_acoustic.": "structural.film.acoustic.linear.",
    "reason_adaptor.": "structural.descriptive_adaptor.",
    "cond_feature_emb.": "structural.condition_projection.",
    "vq_pronunciation_semantic.": "structural.quantiser.phone.",
    "vq_structure_semantic.": "structural.quantiser.structure.",
    "vq_acoustic.": "structural.quantiser.acoustic.",
    "pronunciation_decoder.": "structural.phone_decoder.",
    "cfm_wrapper.estimator.": "flow.estimator.",
}

_PHONE_DECODER = [
    (r"^conv1\.conv\.", "conv_in."),
    (r"^conv2\.conv\.", "conv_out."),
    (r"^conv_blocks\.(\d+)\.conv\.deconv\.", r"blocks.\1.upsample."),
    (r"^conv_blocks\.(\d+)\.res_units\.(\d+)\.conv1\.conv\.", r"blocks.\1.residual_units.\2.conv."),
    (r"^conv_blocks\.(\d+)\.res_units\.(\d+)\.conv2\.", r"blocks.\1.residual_units.\2.pointwise."),
]

_ESTIMATOR = [
    (r"^scale_shift_table$", "output_offset"),
    (r"^proj_in\.ffn_1\.", "input.conv."),
    (r"^proj_in\.ffn_2\.", "input.linear."),
    (r"^proj_out\.ffn_1\.", "output.conv."),
    (r"^proj_out\.ffn_2\.", "output.linear."),
    (r"^adaln_single\.emb\.timestep_embedder\.(linear_[12])\.", r"time.\1."),
    (r"^adaln_single\.linear\.", "time.modulation."),
    (r"^transformer_blocks\.(\d+)\.scale_shift_table$", r"blocks.\1.modulation_offset"),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_q\.", r"blocks.\1.attention.query."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_k\.", r"blocks.\1.attention.key."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_v\.", r"blocks.\1.attention.value."),
    (r"^transformer_blocks\.(\d+)\.attn1\.to_out\.0\.", r"blocks.\1.attention.out."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.", r"blocks.\1.ff_in."),
    (r"^transformer_blocks\.(\d+)\.ff\.net\.2\.", r"blocks.\1.ff_out."),
]

_UNREAD = "structure_semantic_decoder."  # by every published loss, and by encoding and decoding
NOT_LOADED = ("cfm_wrapper.estimator.pos_embed.pe", _UNREAD)  # the first is a table that ours computes


def our_name(published: str) -> str | None:
    """Our name of a published tensor of the structural branch or the flow decoder, or None where there is none.

    None is either deliberate (the key starts with one of NOT_LOADED) or the key belongs to another module.
    """
    if published.startswith(NOT_LOADED):
        return None
    for prefix, ours in _PREFIXES.items():
        if not published.startswith(prefix):
            continue
        rest = published.removeprefix(prefix)
        rules = {"structural.phone_decoder.": _PHONE_DECODER, "flow.estimator.": _ESTIMATOR}.get(ours, [])
        for pattern, replacement in rules:
            if re.match(pattern, rest):
                return ours + re.sub(pattern, replacement, rest)
        return ours + rest
    return None


class Released(NamedTuple):
    """codec: in eval mode. left_out: tensors of the files that neither encoding nor decoding reads, by name."""

    codec: ReasoningCodec
    left_out: tuple[str, ...]


_DESCRIPTIVE = "audio_thinking."
_POSITIONS = "cfm_wrapper.estimator.pos_embed.pe"
_ROTARY = re.compile(r"^audio_thinking\.encoder_transformers\.\d+\.rope\.inv_freq$")
_MUSIC = "pretrained_model.model."  # the frozen music encoder, under the names of its own checkpoint
_TRANSFORMERS = {"whisper_encoder.": "experts.speech_text.encoder.", "wavlm_encoder.": "experts.phone.encoder."}
_OURS_ALONE = ("flow.latent_mean", "flow.latent_spread")  # their start values are the published decoder


def codec_from_published(
    codec_file: str | Path,
    scalar_file: str | Path,
    scalar_config: str | Path,
    music_file: str | Path | None = None,
    whisper: str = "openai/whisper-medium",
    wavlm: str = "microsoft/wavlm-base",
    unstated: ReasoningCodecConfig = ReasoningCodecConfig(),  # noqa: B008 (frozen)
) -> Released:
    """The codec of released files; `save_pretrained` writes it as one of ours.

    codec_file: the ReasoningCodec's checkpoint; scalar_file, scalar_config: weights and YAML of its scalar autoencoder
    music_file: checkpoint of the music encoder, where codec_file does not hold it
    whisper, wavlm: folders or hub ids of the transformers models with the experts' shapes and feature extractors, which
        the saved codec, too, reads from there; their weights are those in codec_file, where it has them
    unstated: what no shape says is taken from it: heads' width of the flow, decays and thresholds, windows
    Files are read as weights only. Raises UserError where one cannot be read, a tensor has no place or a place no
    tensor, a shape does not fit, or a table is another than the published one.
    """
    state, source = read_weights(codec_file), str(codec_file)
    music, unused = _music_encoder(state, source, music_file)
    scalar = _scalar_autoencoder(scalar_file, scalar_config)
    experts = (
        ExpertConfig("speech_text", "whisper", whisper),
        ExpertConfig("phone", "self_supervised", wavlm),
        ExpertConfig("music", "conformer", sizes=music.config),
    )
    config = _codec_config(state, source, replace(unstated, experts=experts, scalar=scalar.config))
    codec = ReasoningCodec(config)
    weights = {f"experts.music.encoder.{name}": value for name, value in music.state_dict().items()}
    weights |= {f"scalar.{name}": value for name, value in scalar.state_dict().items()}
    weights |= {name: value for name, value in codec.state_dict().items() if name in _OURS_ALONE}
    for theirs, ours in _TRANSFORMERS.items():
        if not any(key.startswith(theirs) for key in state):
            weights |= {name: value for name, value in codec.state_dict().items() if name.startswith(ours)}
    try:
        codec.load_state_dict(weights | _converted(state, source, config))
    except RuntimeError as error:  # torch lists every key that is missing, left over or of another shape
        detail = " ".join(str(error).split())[:400]
        raise UserError(f"{source}: not the published codec ({detail}); use the original file") from error
    unused += [key for key in state if key.startswith(_UNREAD)]
    return Released(codec.eval(), tuple(sorted(unused)))


def _converted(state: Mapping[str, Tensor], source: str, config: ReasoningCodecConfig) -> dict[str, Tensor]:
    """Our state dict of a published one but for scalar autoencoder and music encoder; fixed tables are compared."""
    weights = {}
    for key, value in state.items():
        expert = next((prefix for prefix in _TRANSFORMERS if key.startswith(prefix)), None)
        name = our_name(key)
        if expert is not None:
            weights[_TRANSFORMERS[expert] + key.removeprefix(expert)] = value
        elif _ROTARY.match(key):
            steps = torch.arange(0, config.descriptive.rope_dims, 2) / config.descriptive.rope_dims
            _compare(value, config.descriptive.rope_base**-steps, f"{source}: {key}")
        elif key == _POSITIONS:
            width = config.flow.heads * config.flow.head_dim
            _compare(value[0], sinusoidal_positions(config.flow.max_frames, width), f"{source}: {key}")
        elif name is not None:
            weights[name] = value
        elif key.startswith(_DESCRIPTIVE):
            weights |= {f"descriptive.{ours}": tensor for ours, tensor in from_published({key: value}).items()}
        elif not key.startswith((*NOT_LOADED, _MUSIC)):
            raise UserError(f"{source}: {key} is no tensor of the published codec; use the original file")
    return weights


def _codec_config(state: Mapping[str, Tensor], source: str, unstated: ReasoningCodecConfig) -> ReasoningCodecConfig:
    """Sizes read off the shapes, everything else from `unstated`."""

    def shape(key: str) -> torch.Size:
        if key not in state:
            raise UserError(f"{source}: {key} is missing; this is no published ReasoningCodec, or not all of it")
        return state[key].shape

    def count(prefix: str) -> int:
        return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})

    def quantiser(prefix: str, settings: QuantiserConfig) -> QuantiserConfig:
        _, codes, dim = shape(f"{prefix}layers.0._codebook.embed")
        return replace(settings, codebook_size=codes, codebook_dim=dim)

    block, vq = f"{_DESCRIPTIVE}encoder_transformers.", f"{_DESCRIPTIVE}reasoning_vq."
    speech_dim = shape(f"{_DESCRIPTIVE}down_sampling_layer_whisper.weight")[0]
    dim, merged_dim = shape(f"{_DESCRIPTIVE}semantic_merge_proj.weight")
    descriptive = replace(
        unstated.descriptive,
        speech_dim=speech_dim,
        music_dim=merged_dim - speech_dim,
        dim=dim,
        heads=dim // shape(f"{block}0.self_attn.q_norm.weight")[0],
        rope_dims=2 * shape(f"{block}0.rope.inv_freq")[0],
        blocks=count(block),
        feed_forward_multiple=shape(f"{block}0.ff.ff.2.parametrizations.weight.original1")[1] // dim,
        levels=count(f"{vq}layers."),
        quantiser=quantiser(vq, unstated.descriptive.quantiser),
    )
    structural = replace(
        unstated.structural,
        dim=shape("cond_feature_emb.weight")[0],
        quantiser=quantiser("vq_acoustic.", unstated.structural.quantiser),
    )
    width = shape("cfm_wrapper.estimator.proj_in.ffn_2.weight")[0]
    flow = replace(
        unstated.flow,
        layers=count("cfm_wrapper.estimator.transformer_blocks."),
        heads=width // unstated.flow.head_dim,
        ff_mult=shape("cfm_wrapper.estimator.transformer_blocks.0.ff.net.0.proj.weight")[0] // width,
        max_frames=shape(_POSITIONS)[1],
    )
    return replace(unstated, descriptive=descriptive, structural=structural, flow=flow)


def _music_encoder(
    state: Mapping[str, Tensor], source: str, music_file: str | Path | None
) -> tuple[MusicEncoder, list[str]]:
    """The encoder, and the tensors of its file that pre-training alone needed."""
    inside = any(key.startswith(_MUSIC) for key in state)
    if inside and music_file is not None:
        raise UserError(f"{music_file}: {source} holds a music encoder already; leave this file out")
    if not inside and music_file is None:
        raise UserError(f"{source}: holds no music encoder; name the file of the released one (--music-encoder)")
    prefix = _MUSIC if inside else PREFIX
    if not inside:
        state, source = read_weights(music_file), str(music_file)
    unused = [key for key in state if key.startswith(tuple(prefix + name for name in PRETRAINING))]
    return music_encoder_from_published(state, source, prefix), unused


def _scalar_autoencoder(weights: str | Path, config: str | Path) -> ScalarAutoencoder:
    try:
        values = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{config}: cannot be read as YAML ({detail}); give the scalar autoencoder's config") from error
    sizes = _sizes(values)
    if sizes is None:
        raise UserError(f"{config}: names no downsample_factors; give the scalar autoencoder's config")
    try:
        autoencoder = ScalarAutoencoder(parse(ScalarConfig, sizes, str(config)))
    except (UserError, TypeError, ValueError) as error:
        raise UserError(f"{config}: does not describe a published scalar autoencoder ({error})") from error
    try:
        autoencoder.load_state_dict(read_weights(weights))
    except (RuntimeError, ValueError) as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(f"{weights}: does not fit {config} ({detail}); both must be of one release") from error
    return autoencoder.eval()


def _sizes(values: object) -> dict | None:
    """The mapping, at whatever depth, that holds an autoencoder's sizes."""
    if not isinstance(values, dict):
        return None
    if "downsample_factors" in values:
        return values
    return next((found for value in values.values() if (found := _sizes(value)) is not None), None)


def _compare(theirs: Tensor, ours: Tensor, what: str) -> None:
    """The same table, but for the rounding of another maths library."""
    if theirs.shape != ours.shape or not torch.allclose(theirs.float(), ours.float(), atol=1e-3, rtol=0):
        raise UserError(f"{what} is another table than the published codec's; it would say something else")
