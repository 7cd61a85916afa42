"""A codec written in the form of the released files.

An imported codec gives back what was imported: every tensor of every file, in its order and type. One that was trained
here has no record of such files, and is written as the current published form has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from codec.experts.config import ExpertConfig
from codec.experts.conformer import ConformerExpert
from codec.io.errors import UserError
from codec.io.files import new_file
from codec.layers.rotary import rotary_frequencies
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import ReasoningCodecConfig, ScalarConfig
from codec.reasoning.flow_transformer import sinusoidal_positions
from codec.release.music import fixed_tables
from codec.release.names import (
    MUSIC,
    MUSIC_INSIDE,
    MUSIC_PREFIX,
    POSITIONS,
    published_name,
    published_scalar_names,
)
from codec.release.record import PublishedFiles

_MUSIC = "experts.music.encoder."
_SCALAR = "scalar."
_KINDS = {"speech_text": "whisper", "phone": "self_supervised", "music": "conformer"}
_OURS = ("front_end", "fft_size", "hop", "phase_iterations", "principal_components")  # of the scalar autoencoder
# Settings that decide how our code encodes and decodes, and that no released file needs to state.
_FREE = (
    "encode_window_blocks",
    "encode_context_blocks",
    "batch_blocks",
    "decode_steps",
    "decode_guidance",
    "distilled",
)
_REMEDY = "keep it as a folder of this project, which every verb takes"


def write_codec(
    codec: ReasoningCodec,
    record: PublishedFiles | None,
    source: str,
    paths: Mapping[str, Path],
    defaults: ReasoningCodecConfig = ReasoningCodecConfig(),  # noqa: B008 (frozen)
) -> dict[str, int]:
    """Write a codec's released files, all of them or none.

    Args:
        codec: In eval mode.
        record: Of the files that it was imported from; None for a codec that was trained here.
        source: The codec's folder, for messages.
        paths: "codec", "scalar", "scalar_config" and, where the music encoder has a file of its own, "music_encoder"
            -> file to write, none of which exists.
        defaults: Values of settings that no released file states.

    Returns:
        Number of tensors in each file.

    Raises:
        UserError: The codec has no published form, `paths` does not fit where its music encoder belongs, or a file
            cannot be written.
    """
    require_published_form(codec, source, defaults)
    state = codec.state_dict()
    apart = "music_encoder" in paths
    if record is not None and apart != ("music_encoder" in record.files):
        raise UserError(
            f"{source}: its release "
            + (
                "holds the music encoder in the codec's file; leave --music-encoder out"
                if apart
                else "has a file of its own for the music encoder; name it with --music-encoder FILE"
            )
        )
    if record is None:
        files = {"codec": _codec_file(codec, state, inside=not apart), "scalar": _scalar_file(codec, state)}
        if apart:
            files["music_encoder"] = _music_file(codec, state, MUSIC_PREFIX)
        nests = {"codec": "model", "scalar": "codec_model", "music_encoder": "model"}
        values = {key: value for key, value in asdict(codec.config.scalar).items() if key not in _OURS}
    else:
        files = {name: record.state(name, state, source) for name in record.files}
        nests = {name: file.nest for name, file in record.files.items()}
        values = record.scalar_config
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    with contextlib.ExitStack() as written:
        for name, tensors in files.items():
            path = written.enter_context(new_file(paths[name]))
            torch.save({nests[name]: tensors} if nests[name] else tensors, path)
        path = written.enter_context(new_file(paths["scalar_config"]))
        path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return {name: len(tensors) for name, tensors in files.items()}


def require_published_form(
    codec: ReasoningCodec,
    source: str,
    defaults: ReasoningCodecConfig = ReasoningCodecConfig(),  # noqa: B008 (frozen)
) -> None:
    """Raise UserError, saying why, where the published files cannot hold a codec."""
    config = codec.config
    for expert in config.experts:
        if expert.kind != _KINDS[expert.role]:
            raise UserError(
                f"{source}: cannot be written in the published form: its {expert.role} expert is of kind "
                f"'{expert.kind}', the published one of kind '{_KINDS[expert.role]}'; {_REMEDY}"
            )
        plain = ExpertConfig(expert.role, expert.kind, expert.source, sizes=expert.sizes)
        _require_same(plain, expert, f"its {expert.role} expert's", source)
    scalar = replace(config.scalar, **{name: getattr(ScalarConfig(), name) for name in _OURS if name != "hop"})
    _require_same(scalar, config.scalar, "its scalar autoencoder's", source)
    stated = {
        "experts": config.experts,
        "scalar": config.scalar,
        "published_encoding": config.published_encoding,
        "descriptive": replace(
            defaults.descriptive,
            **{
                name: getattr(config.descriptive, name)
                for name in (
                    "speech_dim", "music_dim", "dim", "heads", "rope_dims", "blocks", "feed_forward_multiple", "levels",
                )
            },
            quantiser=_sized(defaults.descriptive.quantiser, config.descriptive.quantiser),
        ),
        "structural": replace(
            defaults.structural,
            dim=config.structural.dim,
            quantiser=_sized(defaults.structural.quantiser, config.structural.quantiser),
        ),
        "flow": replace(
            defaults.flow,
            **{name: getattr(config.flow, name) for name in ("layers", "heads", "ff_mult", "max_frames")},
        ),
        **{name: getattr(config, name) for name in _FREE},
    }  # fmt: skip
    _require_same(replace(defaults, **stated), config, "its", source)
    if codec.flow.latent_mean.any() or (codec.flow.latent_spread != 1).any():
        raise UserError(
            f"{source}: cannot be written in the published form: its flow decoder works on normalised latents, whose "
            f"mean and spread the published decoder does not have; {_REMEDY}"
        )


def _sized(settings: Any, quantiser: Any) -> Any:
    return replace(settings, codebook_size=quantiser.codebook_size, codebook_dim=quantiser.codebook_dim)


def _require_same(published: Any, ours: Any, whose: str, source: str) -> None:
    """Raise UserError naming the first setting in which two configurations differ."""
    expected, actual = _flat(asdict(published)), _flat(asdict(ours))
    name = next((name for name in actual if expected.get(name) != actual[name]), None)
    if name is not None:
        raise UserError(
            f"{source}: cannot be written in the published form, which does not state {whose} {name}: it is "
            f"{actual[name]!r}, the published one {expected.get(name)!r}; {_REMEDY}"
        )


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def _codec_file(codec: ReasoningCodec, state: Mapping[str, Tensor], inside: bool) -> dict[str, Tensor]:
    config = codec.config
    named = {
        published: value
        for name, value in state.items()
        # None: the scalar autoencoder, the music encoder, and what the published decoder does not have
        if (published := published_name(name)) is not None
    }
    frequencies = rotary_frequencies(config.descriptive.rope_dims, config.descriptive.rope_base)
    for block in range(config.descriptive.blocks):
        named[f"audio_thinking.encoder_transformers.{block}.rope.inv_freq"] = frequencies
    width = config.flow.heads * config.flow.head_dim
    named[POSITIONS] = sinusoidal_positions(config.flow.max_frames, width)[None]
    if inside:
        named |= _music_file(codec, state, MUSIC_INSIDE + MUSIC_PREFIX)
    return {name: _plain(value) for name, value in named.items()}


def _music_file(codec: ReasoningCodec, state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    weights = {
        published: value
        for name, value in state.items()
        if name.startswith(_MUSIC) and (published := MUSIC.published(name.removeprefix(_MUSIC))) is not None
    }
    music = codec.experts["music"]
    if isinstance(music, ConformerExpert):  # it is, or the codec has no published form
        weights |= fixed_tables(music.encoder)
    return {f"{prefix}{name}": _plain(value) for name, value in weights.items()}


def _scalar_file(codec: ReasoningCodec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    first = 2 if codec.config.scalar.num_samples > 1 else 1  # of the encoder's parts, the first that is a stage
    stages = range(first, first + len(codec.config.scalar.downsample_factors))
    return {
        published: _plain(value)
        for name, value in state.items()
        if name.startswith(_SCALAR)
        for published in published_scalar_names(name.removeprefix(_SCALAR), stages)
    }


def _plain(value: Tensor) -> Tensor:
    """On the CPU, and without other tensors' memory, which would be saved with it."""
    return value.detach().cpu().contiguous().clone()
