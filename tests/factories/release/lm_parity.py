"""The published model's fixtures: synthetic weights, configuration and tensors, in our terms."""

import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from lm.config import LLAMA_3_ROPE, UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.release.state_dict import from_published
from lm.vocabulary import VocabularyLayout


def load_fixture(folder: Path, name: str) -> tuple[UniAudioForConditionalGeneration, dict[str, torch.Tensor], dict]:
    """Model with the fixture's weights, the fixture's tensors and its description."""
    spec = importlib.util.spec_from_file_location("regenerate_state", folder / "regenerate_state.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = json.loads((folder / f"{name}.json").read_text())
    state = {key: torch.from_numpy(value) for key, value in module.regenerate(description).items()}
    config = published_config(description["config"], description["norm_eps"], description["rope"])
    model = UniAudioForConditionalGeneration(config)
    model.load_state_dict(from_published(state, config))
    return model.eval(), load_file(folder / f"{name}.safetensors"), description


def published_config(values: dict, norm_eps: float = 1e-5, rope: dict | None = None) -> UniAudioConfig:
    """Our configuration from the sizes and ids that the fixtures list; rope: as they state it, None: the published."""
    rotary = dict(LLAMA_3_ROPE)
    if rope is not None:
        rotary |= {name: rope[name] for name in ("factor", "low_freq_factor", "high_freq_factor")}
        rotary["rope_theta"] = float(rope["base"])
        rotary["original_max_position_embeddings"] = rope["original_max_seq_len"]
    # Ids that the fixtures do not state, and that none of their sequences holds: any that are free.
    free = [i for i in range(values["text_vocab"]) if i != values["text_pad"]]
    spare = [
        i
        for i in range(values["semantic_codes"], values["semantic_card"])
        if i not in (values["semantic_bos"], values["semantic_eos"], values["semantic_pad"])
    ]

    def shape(gpt: dict) -> dict:
        return {
            "hidden_size": gpt["n_embd"],
            "num_hidden_layers": gpt["n_layer"],
            "num_attention_heads": gpt["n_head"],
            "num_key_value_heads": gpt["n_query_groups"],
            "intermediate_size": gpt["intermediate_size"],
            "vocab_size": gpt["padded_vocab_size"],
            "rms_norm_eps": norm_eps,
            "max_position_embeddings": 131072,
            "rope_parameters": rotary,
        }

    layout = dict(
        text_size=values["text_vocab"],
        text_bos=free[0],
        text_eos=free[1],
        text_pad=values["text_pad"],
        tags={"transcription": free[2:4], "lyric": free[4:6], "caption": free[6:8]},
        descriptive_codes=values["reason_codes"],
        descriptive_card=values["reason_card"],
        descriptive_bos=values["reason_bos"],
        descriptive_eos=values["reason_eos"],
        descriptive_pad=values["reason_pad"],
        structural_codes=values["semantic_codes"],
        structural_card=values["semantic_card"],
        structural_bos=values["semantic_bos"],
        structural_eos=values["semantic_eos"],
        structural_pad=values["semantic_pad"],
        audio_prompt_bos=spare[0],
        audio_prompt_eos=spare[-1],
    )
    return UniAudioConfig(
        cross_modal=shape(values["backbone"]),
        understanding_layers=values["understanding"]["n_layer"],
        generation_layers=values["generation"]["n_layer"],
        depth=shape(values["decoder"]),
        vocabulary=VocabularyLayout.from_dict(layout).to_dict(),
    )
