"""A language model around a pretrained text model, whose layers become the cross-modal layers."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from codec.io.errors import UserError
from codec.io.hub import local_folder
from codec.io.third_party import third_party_errors
from codec.pretrained import WEIGHTS_FILE
from lm.config import UniAudioConfig
from lm.generation.cached_model import unsupported
from lm.model import UniAudioForConditionalGeneration
from lm.model_folder import INDEX_FILE, check_adapter, check_text_config, require_finite_model, stored_shards
from lm.vocabulary import VocabularyLayout

# What a text model is made of on the hub; safetensors before the older form, which is taken where there is no other.
_HUB_FILES = ("*.json", "*.safetensors", "pytorch_model*.bin", "*.model", "*.txt")
_LAYER = re.compile(r"\blayers\.\d+\.")
_GIVE = "give the folder of a text model that is whole, or a hub id"


def load_text_model(
    source: str | Path, dtype: torch.dtype | Literal["auto"], kind: Any = AutoModelForCausalLM
) -> PreTrainedModel:
    """A causal language model of the transformers library, every weight of it read and finite.

    Args:
        source: Folder or hub id.
        dtype: Of the parameters; "auto": as stored.
        kind: The library's class, an Auto class or one family's.

    Raises:
        UserError: It cannot be read, or is incomplete.
    """
    folder = local_folder(source, "text model", _HUB_FILES)
    check_adapter(folder)
    check_text_config(folder)
    files = stored_shards(folder) if _has_safetensors(folder) else {}
    with third_party_errors(folder, "no text model can be loaded from there", _GIVE):
        model, report = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, trust_remote_code=False)
    if report["missing_keys"]:  # the library fills them with random numbers
        raise UserError(
            f"{source}: the text model there lacks {len(report['missing_keys'])} tensors, such as "
            f"{min(report['missing_keys'])}; give one with its layers and its text head"
        )
    left = sorted(name for name in report["unexpected_keys"] if _LAYER.search(name))
    if left:  # the library leaves them out and goes on with a shallower model
        raise UserError(f"{source}: config.json has fewer layers than the weights, such as {left[0]}; {_GIVE}")
    require_finite_model(model, files, folder)
    return model


def _has_safetensors(folder: Path) -> bool:
    older = any(folder.glob("pytorch_model*.bin"))
    return (folder / WEIGHTS_FILE).exists() or (folder / INDEX_FILE).exists() or not older


@torch.no_grad()
def from_text_backbone(
    source: str | Path,
    vocabulary: VocabularyLayout,
    depth: dict[str, Any] | PreTrainedConfig,
    understanding_layers: int = 3,
    generation_layers: int = 2,
    dtype: torch.dtype | None = None,
) -> UniAudioForConditionalGeneration:
    """Model whose cross-modal layers, text embeddings and text head are those of a text model (UniAudio 2.0 §4.2).

    Embeddings and head are untied, as in the published model. Everything else is new: random from torch's global
    generator, but for the expert layers' last matrices, which are zero, so that at first every layer passes on what it
    gets; audio rows enter the text model at the scale of its own embeddings.

    Args:
        source: Folder or hub id of a causal language model of the Llama or Qwen3 family, tied or untied, sharded or
            not.
        vocabulary: May hold more text ids than the text model (the new ones start as the mean of the old), not fewer.
        depth: Configuration of the depth decoder; what it leaves out is taken from the text model (rotary base, norms).
        dtype: Of the parameters; default: as stored.

    Raises:
        UserError: The source cannot be read, is incomplete or has layers of another kind.
        ValueError: For a smaller vocabulary.
    """
    text_model = load_text_model(source, dtype or "auto")
    shape = copy.deepcopy(text_model.config)
    shape._name_or_path = ""  # a path of this machine, else
    strange = unsupported(shape)
    if strange:
        raise UserError(f"{source}: layers {strange} are not supported; choose another text model")
    if vocabulary.text_size < shape.vocab_size:
        raise ValueError(
            f"the vocabulary holds {vocabulary.text_size} text ids, fewer than the model's {shape.vocab_size}"
        )

    embeddings = text_model.get_input_embeddings().get_parameter("weight")
    head = text_model.get_output_embeddings().get_parameter("weight")
    shape.vocab_size = vocabulary.text_size
    inherited = {"rope_parameters": shape.rope_parameters, "rms_norm_eps": shape.rms_norm_eps}
    depth = depth.to_dict() if isinstance(depth, PreTrainedConfig) else dict(depth)
    depth = inherited | {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None} | depth
    config = UniAudioConfig(
        cross_modal=shape,
        understanding_layers=understanding_layers,
        generation_layers=generation_layers,
        depth=depth,  # type: ignore[arg-type]  # a dict is made a configuration of its own model_type
        vocabulary=vocabulary.to_dict(),
        initializer_range=shape.initializer_range,
        dtype=embeddings.dtype,
    )
    model = UniAudioForConditionalGeneration._from_config(config)
    state = text_model.get_decoder().state_dict()
    state["embed_tokens.weight"] = _enlarged(embeddings, vocabulary.text_size)
    model.cross_modal.load_state_dict(state)
    model.lm_head.weight.copy_(_enlarged(head, vocabulary.text_size))

    for layer in (*model.understanding.layers, *model.generation.layers):
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    scale = embeddings.float().square().mean().sqrt()
    model.understanding.norm.weight.fill_(scale)  # else unit-sized audio rows would drown out what the layers add
    model.audio_embeddings.weight.normal_(std=scale.item())
    return model


def _enlarged(table: Tensor, rows: int) -> Tensor:
    """A (V, d) table with the mean row appended until it has `rows` rows."""
    mean = table.float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])
