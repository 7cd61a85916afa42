"""The published UniAudio 2.0 checkpoint's names and shapes, and ours (published model, §A.6)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from lm.config import UniAudioConfig

GROUPS = {
    "audio_understanding_expert.": "understanding.",
    "backbone.": "cross_modal.",
    "audio_generation_expert.": "generation.",
    "decoder.": "depth_decoder.transformer.",
}
SAME = {
    "audio_embeddings.weight": "audio_embeddings.weight",
    "audio_head": "audio_head",
    "projection.weight": "depth_decoder.projection.weight",
    "backbone.lm_head.weight": "lm_head.weight",
    "backbone.transformer.wte.weight": "cross_modal.embed_tokens.weight",
}
LAYER = {
    "norm_1.weight": "input_layernorm.weight",
    "norm_2.weight": "post_attention_layernorm.weight",
    "attn.proj.weight": "self_attn.o_proj.weight",
    "mlp.fc_1.weight": "mlp.gate_proj.weight",
    "mlp.fc_2.weight": "mlp.up_proj.weight",
    "mlp.proj.weight": "mlp.down_proj.weight",
}
QKV = "attn.qkv.weight"  # rows: all query heads, then all keys, then all values
LEGACY_QKV = "attn.attn.weight"  # the same rows group by group: the group's query heads, its key, its value
PARTS = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")


def from_published(state: Mapping[str, Tensor], config: UniAudioConfig) -> dict[str, Tensor]:
    """Our state dict from the published one, with either form of QKV.

    Raises:
        ValueError: A key is not part of the model; names it.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in SAME:
            ours[SAME[key]] = value
            continue
        group, prefix, rest = _split(key)
        if rest == "ln_f.weight":
            ours[f"{prefix}norm.weight"] = value
            continue
        index, name = rest.removeprefix("h.").split(".", 1)
        if name in (QKV, LEGACY_QKV):
            value = fused_qkv(value, group, config) if name == LEGACY_QKV else value
            for part, rows in zip(PARTS, value.split(_qkv_rows(group, config)), strict=True):
                ours[f"{prefix}layers.{index}.{part}"] = rows
        elif name in LAYER:
            ours[f"{prefix}layers.{index}.{LAYER[name]}"] = value
        else:
            raise ValueError(f"'{key}' is not a tensor of the published language model")
    return ours


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state dict from ours: the inverse of `from_published`.

    Raises:
        ValueError: A key has no place in the published model; names it.
    """
    same = {ours: theirs for theirs, ours in SAME.items()}
    layer = {ours: theirs for theirs, ours in LAYER.items()}
    theirs: dict[str, Tensor] = {}
    for key, value in state.items():
        if key in same:
            theirs[same[key]] = value
            continue
        prefix = next((prefix for prefix in GROUPS.values() if key.startswith(prefix)), None)
        if prefix is None:
            raise ValueError(f"'{key}' has no place in the published language model")
        group = next(name for name, ours in GROUPS.items() if ours == prefix)
        rest = key.removeprefix(prefix)
        if rest == "norm.weight":
            theirs[f"{group}transformer.ln_f.weight"] = value
            continue
        _, index, name = rest.split(".", 2)
        if name == PARTS[0]:
            parts = [state[f"{prefix}layers.{index}.{part}"] for part in PARTS]
            theirs[f"{group}transformer.h.{index}.{QKV}"] = torch.cat(parts)
        elif name not in PARTS:
            theirs[f"{group}transformer.h.{index}.{layer[name]}"] = value
    return theirs


def fused_qkv(legacy: Tensor, group: str, config: UniAudioConfig) -> Tensor:
    """Legacy rows ((H+2G)h, D), interleaved per group -> [all queries | all keys | all values], same shape.

    Args:
        legacy: The rows.
        group: Published prefix of the transformer (a key of GROUPS), for its number of heads.
        config: Of the model.
    """
    queries, keys, _ = _qkv_rows(group, config)
    groups = _shape(group, config).num_key_value_heads
    per_group = legacy.reshape(groups, -1, legacy.shape[-1])  # (G, (H/G + 2)h, D)
    parts = per_group.split([queries // groups, keys // groups, keys // groups], dim=1)
    return torch.cat([part.flatten(0, 1) for part in parts])


def legacy_qkv(fused: Tensor, group: str, config: UniAudioConfig) -> Tensor:
    """The inverse of `fused_qkv`: ((H+2G)h, D) -> the same rows, interleaved per group.

    Args:
        fused: The rows.
        group, config: As in `fused_qkv`.
    """
    groups = _shape(group, config).num_key_value_heads
    parts = [rows.reshape(groups, -1, fused.shape[-1]) for rows in fused.split(_qkv_rows(group, config))]
    return torch.cat(parts, dim=1).flatten(0, 1)


def _split(key: str) -> tuple[str, str, str]:
    """'backbone.transformer.h.0.x' -> ('backbone.', 'cross_modal.', 'h.0.x')."""
    for group, prefix in GROUPS.items():
        if key.startswith(f"{group}transformer."):
            return group, prefix, key.removeprefix(f"{group}transformer.")
    raise ValueError(f"'{key}' is not a tensor of the published language model")


def _shape(group: str, config: UniAudioConfig) -> PreTrainedConfig:
    return config.depth if group == "decoder." else config.cross_modal


def _qkv_rows(group: str, config: UniAudioConfig) -> list[int]:
    shape = _shape(group, config)
    head = shape.head_dim
    return [shape.num_attention_heads * head, shape.num_key_value_heads * head, shape.num_key_value_heads * head]
