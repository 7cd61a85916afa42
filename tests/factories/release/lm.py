"""Tiny files in the form of the released language model, made anew in every test run."""

from __future__ import annotations

import datetime
from collections import OrderedDict
from pathlib import Path

import torch
import yaml

from lm.config import UniAudioConfig
from lm.model import UniAudioForConditionalGeneration
from lm.release.config import model_config
from lm.release.state_dict import GROUPS, LEGACY_QKV, QKV, legacy_qkv, to_published
from lm.text_tokenizer import SentencePieceTokenizer, TextTokenizer
from tests.factories.uniaudio import CODES, TEXTS


def text_tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(TEXTS, 320)


def sizes(width: int, layers: int, **more: int) -> dict[str, int]:
    """Four heads in two groups."""
    return {
        "n_layer": layers,
        "n_embd": width,
        "n_head": 4,
        "n_query_groups": 2,
        "intermediate_size": 2 * width,
        **more,
    }


def config_values(tokenizer: TextTokenizer, **more) -> dict:
    """An llm_config.yaml with every value and one that is no part of the model."""
    return {
        "llm_name": sizes(32, 2, padded_vocab_size=tokenizer.size + 3),
        "local_model": sizes(16, 2),
        "audio_reason_card": CODES + 4,
        "audio_semantic_card": CODES + 8,
        "reason_bos": CODES,
        "reason_eos": CODES + 1,
        "reason_pad_token": CODES + 3,
        "semantic_bos": CODES,
        "semantic_eos": CODES + 1,
        "semantic_pad_token": CODES + 3,
        "audio_prompt_bos": CODES + 4,
        "audio_prompt_eos": CODES + 5,
        "text_pad_token": tokenizer.pad,
        "parallel_number": 9,
        "understanding_layers": 2,
        "generation_layers": 1,
        "exp_dir": "somewhere/else",
        **more,
    }


def published_state(config: UniAudioConfig, legacy: bool = False, prefix: str = "", dtype=torch.float32) -> OrderedDict:
    """Random weights under their published names, in an order that is not ours."""
    torch.manual_seed(0)
    model = UniAudioForConditionalGeneration(config).to(dtype)
    state = OrderedDict()
    for key, value in sorted(to_published(model.state_dict()).items()):
        if legacy and key.endswith(QKV):
            value = legacy_qkv(value, next(group for group in GROUPS if key.startswith(group)), config)
            key = key.removesuffix(QKV) + LEGACY_QKV
        state[prefix + key] = value
    return state


def save_released(path: Path, state: dict, **more) -> Path:
    """The state with what a trainer stores beside it: Adam's moments, a metrics log with times and numpy numbers."""
    import numpy as np

    weight = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    reporter = {"epoch": 2, "stats": {1: OrderedDict(time=datetime.timedelta(seconds=5), loss=np.float64(1.5))}}
    content = {"model": state, "optimizer": optimiser.state_dict(), "scheduler": {"step": 3}, "reporter": reporter}
    torch.save(content | more, path)
    return path


def write_yaml(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def tiny_config(tokenizer: TextTokenizer, **more) -> UniAudioConfig:
    return model_config(config_values(tokenizer, **more), "llm_config.yaml", tokenizer)
