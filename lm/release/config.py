"""The published checkpoint's configuration file (llm_config.yaml): model sizes, cards and special ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import LlamaConfig, PreTrainedConfig

from codec.io.errors import UserError
from codec.streams import StreamSpec
from lm.config import LLAMA_3_ROPE, UniAudioConfig
from lm.text_tokenizer import TextTokenizer
from lm.vocabulary import TAGGED_ROLES, VocabularyLayout

# Sizes behind the names that `llm_name` and `local_model` may hold (published model, §A.1). A model of other sizes has
# no published name; a mapping with these entries stands in the name's place.
SIZES = ("n_layer", "n_embd", "n_head", "n_query_groups", "intermediate_size")
_DEPTH = dict(zip(SIZES, (4, 2048, 32, 8, 8192), strict=True))
BACKBONES = {
    "Llama-3.2-1B": dict(zip(SIZES, (16, 2048, 32, 8, 8192), strict=True)) | {"padded_vocab_size": 128256},
    "Llama-3.2-3B": dict(zip(SIZES, (28, 3072, 24, 8, 8192), strict=True)) | {"padded_vocab_size": 128256},
}
DEPTH_DECODERS = {"Llama-3.2-300M": _DEPTH, "Llama-3.2-4Layer": _DEPTH}
_EXPORT_REMEDY = "share the folder itself, which every verb and transformers read, or train one on Llama 3.2"
CONTEXT, NORM_EPS = 131072, 1e-5
EXPERT_LAYERS = {"understanding_layers": 3, "generation_layers": 2}  # fixed in the published model; may be given

# What the file calls a number -> what the vocabulary layout calls it. Each may carry the ending _token.
_STREAMS = ("descriptive", "structural")
_CODEBOOKS = 8

NUMBERS = {
    "audio_reason_card": "descriptive_card",
    "reason_bos": "descriptive_bos",
    "reason_eos": "descriptive_eos",
    "reason_pad": "descriptive_pad",
    "audio_semantic_card": "structural_card",
    "semantic_bos": "structural_bos",
    "semantic_eos": "structural_eos",
    "semantic_pad": "structural_pad",
    "audio_prompt_bos": "audio_prompt_bos",
    "audio_prompt_eos": "audio_prompt_eos",
    "text_pad": "text_pad",
}
# The published text tokenizer's ids (§B.1), for importing a model of LLaMA's vocabulary without its tokenizer.
PUBLISHED_TEXT_SIZE = 128256
PUBLISHED_TEXT_IDS = {
    "text_bos": 128000,
    "text_eos": 128001,
    "tags": {"transcription": (128011, 128012), "lyric": (128013, 128014), "caption": (128015, 128016)},
}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The values of a configuration file. Raises UserError where it is not a YAML mapping."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable as YAML ({detail}); give the llm_config.yaml of the release") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path}: holds no 'name: value' lines; give the llm_config.yaml of the release")
    return values


def model_config(
    values: Mapping[str, Any],
    source: str,
    text_tokenizer: TextTokenizer | None = None,
    codec: Sequence[StreamSpec] | None = None,
    audio_fingerprint: str = "",
) -> UniAudioConfig:
    """Configuration of our model from the values of an llm_config.yaml.

    Args:
        values: As `read_yaml` gives them.
        source: The file's name, for messages.
        text_tokenizer: Gives BOS, EOS and tags, which the file does not hold. None: the published tokenizer's, which
            fit a model of its vocabulary only.
        codec, audio_fingerprint: The streams of the codec, and which codec it is. None: every id below the first
            special one is a code.

    Raises:
        UserError: Names every value that is missing, and values that fit neither each other nor the tokenizers.
    """
    numbers = _numbers(values, source)
    backbone = _sizes(values, "llm_name", BACKBONES, (*SIZES, "padded_vocab_size"), source)
    depth = _sizes(values, "local_model", DEPTH_DECODERS, SIZES, source)
    if values["parallel_number"] != _CODEBOOKS + 1:
        raise UserError(
            f"{source}: parallel_number is {values['parallel_number']!r}, but rows have {_CODEBOOKS + 1} columns "
            f"({_CODEBOOKS} codebooks and text); this model cannot be imported"
        )
    layers = {name: _integer(values.get(name, number), name, source) for name, number in EXPERT_LAYERS.items()}
    layout = numbers | _text_ids(numbers, backbone["padded_vocab_size"], text_tokenizer, source)
    first = {kind: min(layout[f"{kind}_{name}"] for name in ("bos", "eos", "pad")) for kind in _STREAMS}
    codes = {spec.name: spec.codes for spec in codec} if codec else first
    if set(codes) != set(first):
        raise UserError(
            f"{source}: the released model has the streams {' and '.join(first)}, and the codec "
            f"{', '.join(codes)}; give the codec that the model was trained with"
        )
    for kind, size in codes.items():
        if size > first[kind]:
            raise UserError(
                f"{source}: {kind} id {first[kind]} is a special id, but a code of the codec, whose codebooks hold "
                f"{size}; give the codec that the model was trained with"
            )
    layout |= {f"{kind}_codes": size for kind, size in codes.items()}
    try:
        vocabulary = VocabularyLayout.from_dict(layout | {"audio_fingerprint": audio_fingerprint}, source)
    except UserError as error:
        raise UserError(f"{error}; correct the card or the special id") from error
    return UniAudioConfig(
        cross_modal=LlamaConfig(**_llama(backbone), vocab_size=backbone["padded_vocab_size"]),
        depth=LlamaConfig(**_llama(depth), vocab_size=1, bos_token_id=None, eos_token_id=None),
        vocabulary=vocabulary.to_dict(),
        understanding_layers=layers["understanding_layers"],
        generation_layers=layers["generation_layers"],
    )


def published_values(config: UniAudioConfig, source: str = "the model") -> dict[str, Any]:
    """The values of an llm_config.yaml for our configuration: the inverse of `model_config`.

    Sizes stand under their published name where they have one, else as a mapping.

    Args:
        config: Of the model.
        source: The model's folder, for messages.

    Raises:
        UserError: The published model has no such layers.
    """
    layout = config.layout
    for name, shape in (("cross-modal layers", config.cross_modal), ("depth decoder", config.depth)):
        unlike = _unlike_published(shape)
        if unlike:
            raise UserError(
                f"{source}: the {name} cannot be exported, as the published model has no layers with {unlike}; "
                f"{_EXPORT_REMEDY}"
            )
    numbers = layout.to_dict()
    if "streams" in numbers:
        raise UserError(
            f"{source}: cannot be exported with the streams {', '.join(s.name for s in layout.streams)}, as the "
            f"published model has {' and '.join(_STREAMS)} of {_CODEBOOKS} codebooks; {_EXPORT_REMEDY}"
        )
    values: dict[str, Any] = {
        "llm_name": _name(_sizes_of(config.cross_modal, with_vocabulary=True), BACKBONES),
        "local_model": _name(_sizes_of(config.depth), DEPTH_DECODERS),
        "parallel_number": layout.num_codebooks + 1,
    }
    for name, ours in NUMBERS.items():
        values[f"{name}_token" if name.endswith("_pad") else name] = numbers[ours]
    for name, number in EXPERT_LAYERS.items():
        if getattr(config, name) != number:
            values[name] = getattr(config, name)
    return values


def describes(values: Mapping[str, Any], config: UniAudioConfig) -> bool:
    """Whether the values of an llm_config.yaml, in whatever spelling, are those of this model."""
    try:
        numbers = _numbers(values, "")
        backbone = _sizes(values, "llm_name", BACKBONES, (*SIZES, "padded_vocab_size"), "")
        depth = _sizes(values, "local_model", DEPTH_DECODERS, SIZES, "")
    except UserError:
        return False
    return (
        all(config.layout.to_dict().get(ours) == number for ours, number in numbers.items())
        and all(values.get(name, number) == getattr(config, name) for name, number in EXPERT_LAYERS.items())
        and (backbone, depth) == (_sizes_of(config.cross_modal, with_vocabulary=True), _sizes_of(config.depth))
    )


def _numbers(values: Mapping[str, Any], source: str) -> dict[str, int]:
    """Cards and special ids under the layout's names."""
    found, missing = {}, []
    for name, ours in NUMBERS.items():
        given = {key: values[key] for key in (name, f"{name}_token") if values.get(key) is not None}
        if not given:
            missing.append(f"{name}_token" if name.endswith("_pad") else name)
        elif len(set(map(repr, given.values()))) > 1:
            raise UserError(f"{source}: {' and '.join(given)} differ ({given}); keep the right one")
        else:
            key, value = next(iter(given.items()))
            found[ours] = _integer(value, key, source)
    missing += [name for name in ("llm_name", "local_model", "parallel_number") if values.get(name) is None]
    if missing:
        raise UserError(
            f"{source}: has no value for {', '.join(missing)}; add what the model was trained with (nothing is guessed)"
        )
    return found


def _integer(value: Any, name: str, source: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{source}: {name} is {value!r}, but must be a whole number from 0; correct it")
    return value


def _sizes(
    values: Mapping[str, Any], key: str, known: Mapping[str, dict[str, int]], wanted: tuple[str, ...], source: str
) -> dict[str, int]:
    given = values[key]
    if isinstance(given, str):
        name = given.rsplit("/", 1)[-1]  # with or without the organisation: meta-llama/Llama-3.2-3B
        if name not in known:
            raise UserError(
                f"{source}: {key} '{given}' is not known (known are {', '.join(known)}); "
                f"give its sizes as a mapping of {', '.join(wanted)}"
            )
        return known[name]
    if not isinstance(given, dict) or set(given) != set(wanted):
        raise UserError(f"{source}: {key} is neither a name ({', '.join(known)}) nor a mapping of {', '.join(wanted)}")
    sizes = {name: _integer(given[name], f"{key}.{name}", source) for name in wanted}
    heads = sizes["n_head"]
    if min(sizes.values()) < 1 or sizes["n_embd"] % (2 * heads) or heads % sizes["n_query_groups"]:
        raise UserError(
            f"{source}: the sizes of {key} do not fit each other ({sizes}); n_embd must be an even multiple of n_head, "
            "n_head a multiple of n_query_groups"
        )
    return sizes


def _text_ids(
    numbers: Mapping[str, int], text_size: int, tokenizer: TextTokenizer | None, source: str
) -> dict[str, Any]:
    """Text part of the layout; what tokenizer and file both say must agree."""
    if tokenizer is None:
        if text_size != PUBLISHED_TEXT_SIZE:
            raise UserError(
                f"{source}: does not say which ids begin, end and tag a text, and a model with {text_size} text ids "
                "does not use the published tokenizer; give its text tokenizer with --text-tokenizer"
            )
        return {"text_size": text_size, **PUBLISHED_TEXT_IDS}
    if tokenizer.pad != numbers["text_pad"] or tokenizer.size > text_size:
        raise UserError(
            f"{source}: the model pads text with id {numbers['text_pad']} and has {text_size} text ids, but the "
            f"text tokenizer pads with {tokenizer.pad} and has {tokenizer.size}; give the one it was trained with"
        )
    return {
        "text_size": text_size,
        "text_bos": tokenizer.bos,
        "text_eos": tokenizer.eos,
        "tags": {role: tokenizer.tag(role) for role in TAGGED_ROLES},
        "text_fingerprint": tokenizer.fingerprint,
    }


def _llama(sizes: Mapping[str, int]) -> dict[str, Any]:
    return {
        "hidden_size": sizes["n_embd"],
        "num_hidden_layers": sizes["n_layer"],
        "num_attention_heads": sizes["n_head"],
        "num_key_value_heads": sizes["n_query_groups"],
        "intermediate_size": sizes["intermediate_size"],
        "rms_norm_eps": NORM_EPS,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": dict(LLAMA_3_ROPE),
    }


def _sizes_of(shape: PreTrainedConfig, with_vocabulary: bool = False) -> dict[str, int]:
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    sizes = dict(zip(SIZES, (getattr(shape, name) for name in names), strict=True))
    return sizes | {"padded_vocab_size": shape.vocab_size} if with_vocabulary else sizes


def _name(sizes: dict[str, int], known: dict[str, dict[str, int]]) -> str | dict[str, int]:
    return next((name for name, its in reversed(known.items()) if its == sizes), sizes)


def _unlike_published(shape: PreTrainedConfig) -> str:
    """What of a transformer's configuration the published model fixes otherwise; empty where nothing."""
    if shape.model_type != "llama":
        return f"layers of the family '{shape.model_type}'"
    rope = {key: shape.rope_parameters.get(key) for key in LLAMA_3_ROPE}
    if rope != LLAMA_3_ROPE:
        return f"rotary parameters {dict(shape.rope_parameters)}"
    if shape.rms_norm_eps != NORM_EPS:
        return f"rms_norm_eps {shape.rms_norm_eps}"
    if shape.head_dim * shape.num_attention_heads != shape.hidden_size:
        return f"heads of {shape.head_dim}"
    if shape.attention_bias or shape.mlp_bias or shape.hidden_act != "silu":
        return "biases or another activation"
    return ""
