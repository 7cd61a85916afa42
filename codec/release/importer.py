"""The published ReasoningCodec in our modules: the codec of its released files.

Sizes are read off the shapes, every tensor must have a place, and every place a tensor. What the codec does not hold of
the files is kept beside it (codec/release/record.py), so that it can be written in their form again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from codec.experts.config import ExpertConfig
from codec.experts.music_encoder import MusicEncoder
from codec.io.errors import UserError
from codec.layers.config import QuantiserConfig
from codec.layers.rotary import rotary_frequencies
from codec.reasoning.codec import ReasoningCodec
from codec.reasoning.config import ReasoningCodecConfig
from codec.reasoning.flow_transformer import sinusoidal_positions
from codec.release.buffers import is_table
from codec.release.music import compare_tables, is_fixed, music_encoder_from_published
from codec.release.names import (
    MUSIC,
    MUSIC_INSIDE,
    NOT_LOADED,
    POSITIONS,
    music_prefix,
    our_name,
    our_scalar_name,
    seems,
)
from codec.release.record import PublishedFiles, recorded
from codec.release.scalar import read_scalar_config, scalar_autoencoder_from_published
from codec.untrusted_weights import WeightFile, read_weight_file


class Released(NamedTuple):
    """What released files hold."""

    # in eval mode
    codec: ReasoningCodec
    # names of tensors that neither encoding nor decoding reads, or that our modules compute
    left_out: tuple[str, ...]
    # what the codec itself does not hold of the files; saved into its folder, it lets them be written again
    files: PublishedFiles


_DESCRIPTIVE = "audio_thinking."
_EXPERTS = ("experts.speech_text.encoder.", "experts.phone.encoder.")  # models of transformers
_OURS_ALONE = ("flow.latent_mean", "flow.latent_spread")  # their start values are the published decoder


def codec_from_published(
    codec_file: str | Path,
    scalar_file: str | Path,
    scalar_config: str | Path,
    music_file: str | Path | None = None,
    whisper: str = "openai/whisper-medium",
    wavlm: str = "microsoft/wavlm-base",
    defaults: ReasoningCodecConfig = ReasoningCodecConfig(published_encoding=True),  # noqa: B008 (frozen)
) -> Released:
    """The codec of released files; `save_pretrained` writes it as one of ours.

    Args:
        codec_file: The ReasoningCodec's checkpoint, read as weights only, like all files here.
        scalar_file: Weights of its scalar autoencoder.
        scalar_config: YAML of its scalar autoencoder.
        music_file: Checkpoint of the music encoder, where codec_file does not hold it.
        whisper: Folder or hub id of the transformers model with the speech-text expert's shapes and feature extractor,
            from where the saved codec reads them too; the weights are those in codec_file, where it has them.
        wavlm: The same for the phone expert.
        defaults: Settings that no shape determines: heads' width of the flow, decays and thresholds, windows, and
            whether clips are encoded in the published way.

    Raises:
        UserError: A file cannot be read, a tensor is unknown or missing, a shape does not fit, or a table differs from
            the published one.
    """
    file, source = read_weight_file(codec_file), str(codec_file)
    apart = read_weight_file(music_file) if music_file is not None else None
    music, prefix = _music_encoder(file, source, apart, str(music_file))
    scalar_weights, scalar_values = read_weight_file(scalar_file), read_scalar_config(scalar_config)
    scalar = scalar_autoencoder_from_published(scalar_weights, str(scalar_file), scalar_values, str(scalar_config))
    experts = (
        ExpertConfig("speech_text", "whisper", whisper),
        ExpertConfig("phone", "self_supervised", wavlm),
        ExpertConfig("music", "conformer", sizes=music.config),
    )
    config = _codec_config(file.state, source, replace(defaults, experts=experts, scalar=scalar.config))
    codec = _fitting(config, source)
    ours = codec.state_dict()
    weights = {f"experts.music.encoder.{name}": value for name, value in music.state_dict().items()}
    weights |= {f"scalar.{name}": value for name, value in scalar.state_dict().items()}
    weights |= {name: value for name, value in ours.items() if name in _OURS_ALONE}
    converted = _converted(file.state, source, config, ours.keys())
    for expert in _EXPERTS:
        if not any(name.startswith(expert) for name in converted):
            weights |= {name: value for name, value in ours.items() if name.startswith(expert)}
    try:
        codec.load_state_dict(weights | converted)
    except RuntimeError as error:  # torch lists every key that is missing, left over or of another shape
        detail = " ".join(str(error).split())[:400]
        raise UserError(
            f"{source}: not the published codec ({detail}){seems(file.state)}; use the original file"
        ) from error

    def music_name(key: str) -> str | None:
        name = MUSIC.ours(key.removeprefix(prefix)) if key.startswith(prefix) else None
        return None if name is None else f"experts.music.encoder.{name}"

    names: dict[str, tuple[WeightFile, Callable[[str], str | None]]] = {
        "codec": (file, lambda key: our_name(key) or (music_name(key) if apart is None else None)),
        "scalar": (scalar_weights, lambda key: f"scalar.{our_scalar_name(key)}"),
    }
    if apart is not None:
        names["music_encoder"] = (apart, music_name)
    files = recorded(codec.eval().state_dict(), names, scalar_values)
    codec.store_in(files.narrow_types())
    computed = {POSITIONS} | {key for key in file.state if key.endswith(".rope.inv_freq")}
    unused = [
        key
        for _, key in files.apart
        if key not in computed and not (key.startswith(prefix) and is_fixed(key.removeprefix(prefix)))
    ]
    return Released(codec, tuple(sorted(unused)), files)


def _fitting(config: ReasoningCodecConfig, source: str) -> ReasoningCodec:
    """A codec of sizes that were read off shapes. Raises UserError where they do not fit each other."""
    try:
        return ReasoningCodec(config)
    except UserError as error:
        raise UserError(f"{source}: does not fit the experts and files beside it ({error})") from error
    except (ValueError, RuntimeError, ZeroDivisionError, AssertionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{source}: its shapes are no codec's ({detail}); use the original file") from error


def _converted(
    state: Mapping[str, Tensor], source: str, config: ReasoningCodecConfig, known: Collection[str]
) -> dict[str, Tensor]:
    """Our state dict of a published one but for scalar autoencoder and music encoder; fixed tables are compared.

    Args:
        known: Names of our state dict.
    """
    weights: dict[str, Tensor] = {}
    rope_frequencies = rotary_frequencies(config.descriptive.rope_dims, config.descriptive.rope_base)
    positions = sinusoidal_positions(config.flow.max_frames, config.flow.heads * config.flow.head_dim)

    def put(key: str, value: Tensor) -> bool:
        """Whether the tensor has a place with us, where it then is."""
        name = our_name(key)
        if name is None or (name not in weights and name not in known and is_table(key, value, source)):
            return False
        if name in weights:
            raise UserError(f"{source}: {key} is there a second time under an older name; remove one of them")
        weights[name] = value
        return True

    def leave_over(key: str, value: Tensor) -> None:  # load_state_dict then names it as unexpected
        weights[f"descriptive.{key.removeprefix(_DESCRIPTIVE)}"] = value

    def skip(key: str, value: Tensor) -> None:
        pass

    def refuse(key: str, value: Tensor) -> None:
        raise UserError(f"{source}: {key} is no tensor of the published codec{seems([key])}; use the original")

    rules: tuple[tuple[Callable[[str, Tensor], bool], Callable[[str, Tensor], None]], ...] = (
        (
            lambda key, _: key.startswith(_DESCRIPTIVE) and key.endswith(".rope.inv_freq"),
            lambda key, value: compare_tables(value, rope_frequencies, f"{source}: {key}"),
        ),
        (
            lambda key, _: key == POSITIONS,
            lambda key, value: compare_tables(value[0], positions, f"{source}: {key}"),
        ),
        (lambda key, _: key.startswith((*NOT_LOADED, MUSIC_INSIDE)), skip),
        (lambda key, value: is_table(key, value, source), skip),
        (lambda key, _: key.startswith(_DESCRIPTIVE), leave_over),
        (lambda key, _: True, refuse),
    )
    for key, value in state.items():
        if not put(key, value):
            action = next(action for matches, action in rules if matches(key, value))  # the first rule that matches
            action(key, value)
    return weights


def _codec_config(state: Mapping[str, Tensor], source: str, defaults: ReasoningCodecConfig) -> ReasoningCodecConfig:
    """Sizes read off the shapes, everything else from `defaults`."""

    def shape(key: str, axes: int) -> Sequence[int]:
        if key not in state:
            raise UserError(
                f"{source}: {key} is missing; this is no published ReasoningCodec, or not all of it{seems(state)}"
            )
        if state[key].ndim != axes or not state[key].numel():
            raise UserError(
                f"{source}: {key} has shape {tuple(state[key].shape)}, where {axes} axes are expected; use the original"
            )
        return state[key].shape

    def count(prefix: str) -> int:
        return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})

    def quantiser(prefix: str, settings: QuantiserConfig) -> QuantiserConfig:
        _, codes, dim = shape(f"{prefix}layers.0._codebook.embed", 3)
        return replace(settings, codebook_size=codes, codebook_dim=dim)

    block, vq = f"{_DESCRIPTIVE}encoder_transformers.", f"{_DESCRIPTIVE}reasoning_vq."
    speech_dim = shape(f"{_DESCRIPTIVE}down_sampling_layer_whisper.weight", 3)[0]
    dim, merged_dim = shape(f"{_DESCRIPTIVE}semantic_merge_proj.weight", 2)
    descriptive = replace(
        defaults.descriptive,
        speech_dim=speech_dim,
        music_dim=merged_dim - speech_dim,
        dim=dim,
        heads=dim // shape(f"{block}0.self_attn.q_norm.weight", 1)[0],
        rope_dims=2 * shape(f"{block}0.rope.inv_freq", 1)[0],
        blocks=count(block),
        feed_forward_multiple=shape(f"{block}0.ff.ff.2.parametrizations.weight.original1", 2)[1] // dim,
        levels=count(f"{vq}layers."),
        quantiser=quantiser(vq, defaults.descriptive.quantiser),
    )
    structural = replace(
        defaults.structural,
        dim=shape("cond_feature_emb.weight", 2)[0],
        quantiser=quantiser("vq_acoustic.", defaults.structural.quantiser),
    )
    width = shape("cfm_wrapper.estimator.proj_in.ffn_2.weight", 2)[0]
    flow = replace(
        defaults.flow,
        layers=count("cfm_wrapper.estimator.transformer_blocks."),
        heads=width // defaults.flow.head_dim,
        ff_mult=shape("cfm_wrapper.estimator.transformer_blocks.0.ff.net.0.proj.weight", 2)[0] // width,
        max_frames=shape(POSITIONS, 3)[1],
    )
    return replace(defaults, descriptive=descriptive, structural=structural, flow=flow)


def _music_encoder(
    file: WeightFile, source: str, apart: WeightFile | None, music_source: str
) -> tuple[MusicEncoder, str]:
    """The encoder, out of the codec's file or one of its own, and what stands before every key of it."""
    inside = music_prefix(file.state, inside=True)
    if apart is not None:
        if inside is not None:
            raise UserError(f"{music_source}: {source} holds a music encoder already; leave this file out")
        prefix = music_prefix(apart.state, inside=False)
        if prefix is None:
            raise UserError(f"{music_source}: no published music encoder{seems(apart.state)}; use the original file")
        return music_encoder_from_published(apart.state, music_source, prefix), prefix
    if inside is not None:
        return music_encoder_from_published(file.state, source, inside), inside
    if any(key.startswith("pretrained_model.") for key in file.state):
        raise UserError(
            f"{source}: holds a music encoder under names that are not the published ones; use the original file"
        )
    _require_codec(file, source)
    raise UserError(f"{source}: holds no music encoder; name the file of the released one (--music-encoder)")


def _require_codec(file: WeightFile, source: str) -> None:
    """Raise UserError where a file is wholly something else."""
    if not any(our_name(key) is not None for key in file.state):
        raise UserError(
            f"{source}: holds none of the published codec's tensors{seems(file.state)}; give its checkpoint"
        )
